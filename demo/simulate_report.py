"""The report of a simulation: both sides beside each other, the worst cases, and how to replay.

As JSON it has the version 1 and these keys, to which later versions may only add:
version, passed, failures (sentences), command, seed, app, options, plan (works, messages, deaths,
outages), sides (`plain` and `idemwatch`: the counts of simulate_judge, and `settled`: whether no
message was left), works (name, kind, and for
each side fate, effects, executions, ran_twice, at_once), examples (side, work, fate, explained_by,
history of `at` and `what`). Times are seconds since publishing began, counts are whole numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from .simulate_history import History
from .simulate_judge import Fate, Judged, Verdict, failures
from .simulate_plan import LEASE_SECONDS, VISIBILITY_SECONDS, Plan
from .simulate_stage import IDEMWATCH, PLAIN, SIDES
from .simulate_story import explained_by, story, verdict

VERSION: Final = 1
EXAMPLES: Final = 3
"""Of what must not be."""
LINES: Final = 16
"""Of one example, for people."""
TITLES: Final = {PLAIN: "plain Celery", IDEMWATCH: "idemwatch"}
ROWS: Final = (
    ("works", "pieces of work"),
    ("messages", "messages published"),
    ("deliveries", "messages delivered"),
    ("redelivered", "  by the broker once more"),
    ("killed", "processes and workers killed"),
    ("executions", "executions"),
    ("ran_twice", "  done again, no death explains it"),
    ("ran_at_once", "  two at the same time"),
    ("turned_away", "turned away as duplicates"),
    ("taken_over", "taken over from the dead"),
    ("put_off", "put off, as a store was away"),
    ("once", "effects that happened once"),
    ("doubled", "  DOUBLED"),
    ("repeated_after_death", "  unguarded, repeated after a death"),
    ("failed", "  none: your task raised an error"),
    ("lost", "  lost"),
    ("lost_by_broker", "  lost by the broker, with a killed worker"),
    ("refused_by_target", "second effects refused by their target"),
    ("seconds", "seconds"),
)
_ONLY_IDEMWATCH: Final = ("turned_away", "taken_over", "put_off")


@dataclass(frozen=True, slots=True)
class Report:
    """What both plays of a plan came to. `app`: the user's, None for the sample tasks."""

    plan: Plan
    histories: Mapping[str, History]
    verdicts: Mapping[str, Verdict]
    command: str
    app: str | None = None

    @property
    def failures(self) -> list[str]:
        """What must not be; empty when the guarantee held."""
        return failures(self.verdicts[PLAIN], self.verdicts[IDEMWATCH])

    def as_dict(self) -> dict[str, Any]:
        """As the module says."""
        plan = self.plan
        return {
            "version": VERSION,
            "passed": not self.failures,
            "failures": self.failures,
            "command": self.command,
            "seed": plan.seed,
            "app": self.app,
            "options": asdict(plan.options),
            "plan": {
                "works": len(plan.works),
                "messages": plan.messages,
                "deaths": plan.deaths,
                "outages": [asdict(outage) for outage in plan.outages],
            },
            "sides": {
                side: {**self.verdicts[side].counts, "settled": self.verdicts[side].settled}
                for side in SIDES
            },
            "works": self._works(),
            "examples": [self._example(side, one) for side, one in self.examples()],
        }

    def as_json(self) -> str:
        """One JSON object, with a newline at its end."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def as_text(self) -> str:
        """For people, with a newline at its end."""
        return "\n".join(self.lines()) + "\n"

    def examples(self) -> Iterator[tuple[str, Judged]]:
        """What must not be, then the worst and the shortest of plain Celery, then what a death
        explains."""
        ours, plain = self.verdicts[IDEMWATCH].works, self.verdicts[PLAIN].works
        yield from ((IDEMWATCH, one) for one in _ranked(ours, _wrong)[:EXAMPLES])
        yield from ((PLAIN, one) for one in _ranked(plain, _lost)[:EXAMPLES])
        doubled = _ranked(plain, lambda one: one.fate is Fate.DOUBLED)
        yield from ((PLAIN, one) for one in (*doubled[:1], *doubled[1:][-1:]))
        repeated = _ranked(ours, lambda one: one.fate is Fate.AFTER_DEATH)
        yield from ((IDEMWATCH, one) for one in repeated[-1:])

    def _works(self) -> list[dict[str, Any]]:
        sides = {side: {one.work: one for one in self.verdicts[side].works} for side in SIDES}
        return [
            {"work": work, "kind": str(one.kind)}
            | {side: _told(sides[side][work]) for side in SIDES}
            for work, one in sides[PLAIN].items()
        ]

    def _example(self, side: str, one: Judged) -> dict[str, Any]:
        history = self.histories[side]
        return {
            "side": side,
            "work": one.work,
            "fate": str(one.fate),
            "explained_by": explained_by(history, one),
            "history": [{"at": at, "what": what} for at, what in story(history, one.work)],
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield from self._table()
        for side, one in self.examples():
            yield from ("", *self._told_example(side, one))
        yield ""
        yield from self._remarks()
        if self.failures:
            yield from ("", "FAILED", *(f"  {sentence}" for sentence in self.failures))
        yield f"the same again: {self.command}"

    def _table(self) -> Iterator[str]:
        yield f"{'':42}{TITLES[PLAIN]:>14}{TITLES[IDEMWATCH]:>14}"
        for name, title in ROWS:
            cells = [str(self.verdicts[side].counts[name]) for side in SIDES]
            if name == "failed" and self.app is None:
                continue
            if name in _ONLY_IDEMWATCH:
                cells[0] = "-"
            yield f"{title:42}{cells[0]:>14}{cells[1]:>14}"

    def _told_example(self, side: str, one: Judged) -> Iterator[str]:
        history = self.histories[side]
        what = f"{one.effects} effects" if one.effects != 1 else "1 effect"
        yield f"{one.work} under {TITLES[side]}: {what} in {one.executions} executions"
        told = [f"  {at:7.2f} s  {what}" for at, what in story(history, one.work)]
        yield from told[:LINES]
        if len(told) > LINES:
            yield f"             ... and {len(told) - LINES} more, which --json has"
        yield f"  {verdict(history, one)}"

    def _remarks(self) -> Iterator[str]:
        yield (
            f"A time-lapse: the broker delivers again after {VISIBILITY_SECONDS:g} s instead of an "
            f"hour, a dead worker holds its key for {LEASE_SECONDS:g} s instead of 30."
        )
        if self.app is not None:
            yield "An effect is here the end of a body; what that did elsewhere is not counted."
        if not self.verdicts[PLAIN].settled:
            yield "Plain Celery still had messages on their way when the time to settle was over."
        if any(self.verdicts[side].counts["lost_by_broker"] for side in SIDES):
            yield (
                "Celery takes a message from Redis a moment before it notes that it has it: a "
                "worker killed in between takes it along, and no idempotency brings it back."
            )
        if self.verdicts[IDEMWATCH].counts["repeated_after_death"]:
            yield (
                "An effect that neither commits with its record nor is refused by its target may "
                "happen again after an attempt that died: that is counted, and not as doubled."
            )


def _wrong(one: Judged) -> bool:
    return one.fate in (Fate.DOUBLED, Fate.LOST, Fate.FAILED) or one.ran_twice or one.at_once


def _lost(one: Judged) -> bool:
    return one.fate is Fate.LOST


def _ranked(works: Sequence[Judged], chosen: Callable[[Judged], bool]) -> list[Judged]:
    """Those chosen, the worst first."""
    return sorted(filter(chosen, works), key=lambda one: (-one.effects, -one.executions))


def _told(one: Judged) -> dict[str, Any]:
    return {
        "fate": str(one.fate),
        "effects": one.effects,
        "executions": one.executions,
        "ran_twice": one.ran_twice,
        "at_once": one.at_once,
    }
