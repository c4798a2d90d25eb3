"""docs/comparison.md, written from the raw run alone: pure, so that a test can tell that it is so.

What a case does is told by cases.py; every number and verdict comes from the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from . import results
from .cases import CASES
from .costs_table import cost_lines
from .seen import Kind, Seen, Verdict
from .systems import SYSTEMS, System

PAGE: Final = results.ROOT / "docs" / "comparison.md"
TITLE: Final = "# Side by side with the peers\n"
HEAD: Final = """\
The same trouble, made for idemwatch and for what else is used in its place, with real Celery
workers (prefork), Redis and PostgreSQL. This page is written by `make comparison` out of [the raw
run](../tests/comparison/results.json): no number and no verdict in it is by hand. What the words
of the guarantee mean is in [Guarantees and limits](guarantees.md); how to come over is in [Coming
from other libraries](coming-from.md).
"""
FAIR: Final = """\
Each is set up as well as its documentation allows, and all of them acknowledge late (`acks_late`)
and give the message of a dead child back (`reject_on_worker_lost`). Two of them guard publishing
and not execution, and one is made for Lambda functions: a case that they do not claim to stand is
a limit of theirs, and not a fault; it is shown because it is what a worker meets. Where two
columns differ only in what they promise, the words of the last column of this table decide which
one you need.
"""
LEGEND: Final = """\
*once*: the work was done once, nobody was shut out, and nobody got a wrong answer. **Bold**: it
was not so. *Italics*: it was not so, and the system does not claim that it would be. *N times*:
the effect (or, where a second execution is the harm, the task) came so often. *blocked*: the key
stayed shut for so long though nobody worked on it, here as long as the lock lasts. *refused*,
*told*: the caller got this error, at the call or as its result. A case's name leads to what was
done and seen.
"""
COSTS: Final = """\
Ratios to the same baseline, in turns on one machine, median of pairs; times are CPU time. Less is
better. What a row measures stands in [tests/benchmarks](../tests/benchmarks). Most peers do less
for it: a lock without an owner, a result, or a count. Rows marked * were not measured in this
run, since no peer does anything that could stand beside them: their figures are those of the last
`make bench` and `make bench-large`.
"""


def render(run: Mapping[str, Any]) -> str:
    """The page of a run."""
    judged = results.verdicts(run["cases"])
    parts = [
        TITLE,
        _paragraph(HEAD),
        "## What was run\n",
        _about(run["machine"]),
        _table(["", "version", "settings", "what it promises itself"], _systems(run["versions"])),
        _paragraph(FAIR),
        "## Cases\n",
        _table(["", *(one.name for one in SYSTEMS)], _verdicts(judged)),
        _paragraph(LEGEND),
        "## Costs\n",
        *cost_lines(run["costs"]),
        _paragraph(COSTS),
        "## Where idemwatch is not ahead\n",
        *_behind(run["cases"], judged),
        "## What was done and seen\n",
        *_stories(run["cases"], judged),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _paragraph(text: str) -> str:
    """One line, as the pages of this folder have it."""
    return " ".join(text.split()) + "\n"


def _about(machine: Mapping[str, Any]) -> str:
    return (
        f"On {machine['date']}, on a machine with {machine['cores']} cores and"
        f" {machine['memory_gb']} GB of memory, Python {machine['python']}, Redis"
        f" {machine['redis']}, PostgreSQL {machine['postgresql']}. All systems went through a case"
        " at the same time, each with workers and databases of its own."
        f"{_load(machine)}\n"
    )


def _load(machine: Mapping[str, Any]) -> str:
    """What else the machine had to do, which makes figures of time waver."""
    load = machine.get("load", 0.0)
    return f" Other work gave it a load of {load:.0f} at the start." if load >= 1 else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _systems(versions: Mapping[str, str]) -> Iterable[Sequence[str]]:
    for one in SYSTEMS:
        promise = f"{one.promises} [Its page]({one.docs})"
        yield one.name, f"{one.package} {versions[one.package]}", one.settings, promise


def _verdicts(judged: Mapping[str, Mapping[str, Verdict]]) -> Iterable[Sequence[str]]:
    for name, found in judged.items():
        title = CASES[name].title
        cells = (_cell(found[one.name], one in CASES[name].unclaimed) for one in SYSTEMS)
        yield f"[{title}](#{_anchor(title)})", *cells
    yield "stood", *(_stood(judged, one) for one in SYSTEMS)


def _cell(verdict: Verdict, unclaimed: bool) -> str:
    mark = "*" if unclaimed else "**"
    return verdict.text if verdict.kind is Kind.GOOD else f"{mark}{verdict.text}{mark}"


def _stood(judged: Mapping[str, Mapping[str, Verdict]], system: System) -> str:
    """Of the cases that a system claims, and of the others."""
    good = [name for name, found in judged.items() if found[system.name].kind is Kind.GOOD]
    claimed = [name for name in judged if system not in CASES[name].unclaimed]
    beyond = [name for name in good if name not in claimed]
    if not claimed:
        return f"{len(good)} of {len(judged)}, claims none"
    more = f", and {len(beyond)} not claimed" if beyond else ""
    return f"{len(good) - len(beyond)} of {len(claimed)}{more}"


def _anchor(title: str) -> str:
    kept = (one for one in title.lower() if one.isalnum() or one in " -")
    return "".join(kept).replace(" ", "-")


# -- where others are as good or better ------------------------------------------------------


def _behind(cases: Mapping[str, Any], judged: Mapping[str, Mapping[str, Verdict]]) -> Iterable[str]:
    peers = [one for one in SYSTEMS if not one.ours]
    for name, found in judged.items():
        bad = [one.name for one in SYSTEMS if one.ours and found[one.name].kind is not Kind.GOOD]
        if bad:
            yield f"- {CASES[name].title}: {_joined(bad)} does not stand it: {found[bad[0]].text}."
    yield from _later(cases, judged)
    for one in peers:
        equal = [CASES[name].title for name in judged if _all_good(judged[name], one)]
        if equal:
            yield f"- As good, {one.name}: {'; '.join(equal)}."
    yield ""


def _all_good(found: Mapping[str, Verdict], peer: System) -> bool:
    return found[peer.name].kind is Kind.GOOD


def _later(cases: Mapping[str, Any], judged: Mapping[str, Mapping[str, Verdict]]) -> Iterable[str]:
    """Cases in which work went on sooner with a peer that stood them too."""
    for name, found in cases.items():
        times = {
            system: one["waited_seconds"]
            for system, one in found.items()
            if judged[name][system].kind is Kind.GOOD
        }
        ours = min(
            (times[one.name] for one in SYSTEMS if one.ours and one.name in times), default=0
        )
        sooner = [system for system, seconds in times.items() if seconds < ours - 1]
        if sooner:
            best = min(times[system] for system in sooner)
            yield (
                f"- {CASES[name].title}: the work went on after {best:.1f} s with"
                f" {_joined(sooner)}, after {ours:.1f} s with idemwatch, whose lease must run out"
                " first."
            )


def _joined(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


# -- each case -------------------------------------------------------------------------------


def _stories(
    cases: Mapping[str, Any], judged: Mapping[str, Mapping[str, Verdict]]
) -> Iterable[str]:
    for name, found in cases.items():
        seen = {system: results.seen_of(one) for system, one in found.items()}
        yield f"### {CASES[name].title}\n"
        yield f"{CASES[name].did}\n"
        yield "\n".join(_story(seen, judged[name])) + "\n"


def _story(seen: Mapping[str, Seen], judged: Mapping[str, Verdict]) -> Iterable[str]:
    """One line for all systems of which the same is to be said."""
    said: dict[str, list[str]] = {}
    for system, one in seen.items():
        line = f"**{judged[system].text}**: {_facts(one)}"
        said.setdefault(line, []).append(system)
    for line, systems in said.items():
        yield f"- {_joined(systems)}: {line}"


def _facts(seen: Seen) -> str:
    facts = [f"began {_times(seen.executions)}", f"effect {_times(seen.effects)}"]
    if seen.at_once > 1:
        facts.append(f"{seen.at_once} at once")
    if seen.waited_seconds >= 1:
        facts.append(f"waited {seen.waited_seconds:.0f} s")
    if seen.callers:
        facts.append(f"callers: {', '.join(seen.callers)}")
    if not seen.settled:
        facts.append("not ended when the case was over")
    return "; ".join(facts) + "."


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
