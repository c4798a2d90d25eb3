"""The comparison: what is said of what was seen, the page that is written, and our side of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparison import command, page, results, seen
from comparison.cases import CASES
from comparison.costs_table import cost_lines
from comparison.ground import open_servers
from comparison.seen import Kind, Seen, Verdict
from comparison.sites import Site
from comparison.systems import POSTGRES, REDIS, SYSTEMS

REQUIREMENTS = Path(command.__file__).with_name("requirements.txt")
ONCE = Seen(executions=1, effects=1, callers=("result 1", "refused AlreadyQueued"))
QUICK = (
    "called_again_later",
    "one_key_with_other_arguments",
    "result_of_zero",
    "child_killed_after_its_effect",
)


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return results.read()


def test_the_page_is_what_the_last_run_says(run: dict[str, Any]) -> None:
    assert page.PAGE.read_text("utf-8") == page.render(run), "run: make comparison"


def test_the_last_run_did_every_case_with_every_system(run: dict[str, Any]) -> None:
    assert set(run["cases"]) == set(CASES)
    systems = {system.name for system in SYSTEMS}
    assert all(set(found) == systems for found in run["cases"].values())


def test_the_last_run_used_the_versions_that_are_pinned(run: dict[str, Any]) -> None:
    pinned = dict(re.findall(r"^([\w-]+)(?:\[.*\])?==([\d.]+)$", REQUIREMENTS.read_text(), re.M))
    known = {name: version for name, version in run["versions"].items() if name != "idemwatch"}
    assert known == pinned


def test_the_last_run_holds_what_is_promised(run: dict[str, Any]) -> None:
    assert list(results.contradictions(results.verdicts(run["cases"]))) == []


def test_the_page_names_no_path_and_each_of_its_links_leads_somewhere() -> None:
    text = page.PAGE.read_text("utf-8")
    assert not re.search(r"[ (`]/(tmp|home|root|work|usr)\b", text)
    headings = re.findall(r"^### (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {one[1:] for one in links if one[0] == "#"} == anchors
    near = [one for one in links if one[0] != "#" and "://" not in one]
    assert near and all((page.PAGE.parent / one).exists() for one in near)


@pytest.mark.parametrize(
    ("changed", "kind", "text"),
    [
        ({}, Kind.GOOD, "once"),
        ({"effects": 2}, Kind.REPEATED, "2 times"),
        ({"effects": 3, "at_once": 2}, Kind.REPEATED, "3 times, 2 at once"),
        ({"effects": 0, "callers": ("nothing",)}, Kind.LOST, "lost"),
        ({"effects": 0, "callers": (), "settled": False}, Kind.LOST, "not done"),
        ({"effects": 0}, Kind.REFUSED, "not done, refused AlreadyQueued"),
        ({"waited_seconds": 9.9}, Kind.GOOD, "once"),
        ({"waited_seconds": 15.2}, Kind.BLOCKED, "once, blocked for 15 s"),
        ({"callers": ("result 0", "result null")}, Kind.WRONG, "once, but a caller got null"),
        ({"callers": ("told Oops",)}, Kind.WRONG, "once, but a caller was told Oops"),
        ({"callers": ("nothing",)}, Kind.WRONG, "once, but a caller got nothing"),
    ],
)
def test_work_is_to_be_done_once(changed: dict[str, Any], kind: Kind, text: str) -> None:
    assert seen.done_once(replace(ONCE, **changed)) == Verdict(kind, text)


def test_a_second_execution_is_the_harm_where_the_case_says_so() -> None:
    twice = Seen(executions=2, effects=1, at_once=2)
    assert seen.done_once(twice).kind is Kind.GOOD
    assert seen.ran_once(twice) == Verdict(Kind.REPEATED, "2 times, 2 at once")
    assert seen.ran_twice(twice) == Verdict(Kind.GOOD, "no third")
    assert seen.ran_twice(replace(twice, executions=3)).kind is Kind.REPEATED


def test_two_pieces_of_work_are_both_to_be_done() -> None:
    assert seen.both_done(Seen(2, 2)) == Verdict(Kind.GOOD, "both")
    assert seen.both_done(Seen(1, 1)).kind is Kind.LOST


@pytest.mark.parametrize(
    ("executions", "second", "kind"),
    [
        (1, "told ArgumentMismatch", Kind.GOOD),
        (1, "refused AlreadyQueued", Kind.GOOD),
        (1, "result 1", Kind.WRONG),
        (1, "nothing", Kind.LOST),
        (2, "result 2", Kind.REPEATED),
    ],
)
def test_a_mistake_is_to_be_told(executions: int, second: str, kind: Kind) -> None:
    found = Seen(executions, executions, callers=("result 1", second))
    assert seen.second_refused(found).kind is kind


def test_what_kills_is_to_be_given_up_and_told() -> None:
    told = Seen(4, 0, callers=("told PoisonedKey",))
    assert seen.given_up(told) == Verdict(Kind.GOOD, "stopped after 4")
    assert seen.given_up(replace(told, settled=False)).kind is Kind.REPEATED
    assert seen.given_up(replace(told, callers=("result 9",))).kind is Kind.REPEATED


def test_a_chord_is_to_end_once_with_each_part_done_once() -> None:
    good = Seen(executions=1, effects=3, callers=("result 6",))
    assert seen.parts_once(good) == Verdict(Kind.GOOD, "once")
    assert seen.parts_once(replace(good, effects=4)).text == "a part 2 times, ended once"
    assert seen.parts_once(replace(good, executions=2)).kind is Kind.WRONG
    assert seen.parts_once(replace(good, callers=("result 5",))).kind is Kind.WRONG


def test_executions_at_once_are_counted_by_their_times() -> None:
    events = [("start", 1, 0.0), ("start", 2, 1.0), ("end", 1, 2.0), ("start", 3, 3.0)]
    found = [{"event": event, "number": n, "at": at} for event, n, at in events]
    assert seen.most_at_once(found) == 2
    assert seen.most_at_once([]) == 0


def test_what_was_seen_is_read_back_as_it_was() -> None:
    assert results.seen_of(results.as_plain(ONCE)) == ONCE


def test_idemwatch_is_held_to_what_it_promises_and_no_peer_is(run: dict[str, Any]) -> None:
    judged = results.verdicts(run["cases"])
    bad = Verdict(Kind.REPEATED, "2 times")
    for system in SYSTEMS:
        changed = {"retried": {**judged["retried"], system.name: bad}}
        assert bool(list(results.contradictions(changed))) is system.ours
    emptied = {"redis_emptied_while_it_runs": {REDIS.name: bad}}
    assert list(results.contradictions(emptied)) == []  # said in docs/guarantees.md
    assert list(results.contradictions({"redis_emptied_while_it_runs": {POSTGRES.name: bad}}))


def test_a_row_in_which_a_peer_is_faster_is_told() -> None:
    cost = {"what": "A lock.", "baseline": "SET", "unit": "x", "goal": "≤ 2", "here": True}
    slower = {"lock": {**cost, "value": 1.9, "peers": {"quick": 1.5, "slow": 3.0}}}
    table, told = cost_lines(slower)
    assert "| `lock` | A lock. | SET | ≤ 2 | 1.90 | quick 1.50, slow 3.00 |" in table
    assert told == "idemwatch is slower than a peer in `lock` (quick).\n"
    old = {"purge": {**cost, "value": None, "peers": {}, "here": False}}
    table, told = cost_lines(old)
    assert "| `purge` * | A lock. | SET | ≤ 2 | not measured | no peer has it |" in table
    assert told == "idemwatch is nowhere slower than a peer.\n"


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (command.Broken("retried, celery-once: lost"), 1, "retried, celery-once: lost"),
    ],
)
def test_a_run_that_ends_early_writes_nothing(
    raised: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr(command, "missing", list)
    monkeypatch.setattr(command, "_run_cases", ends)
    monkeypatch.setattr(command, "replace_whole", lambda *_: pytest.fail("written"))
    assert command.main([]) == code
    err = capsys.readouterr().err
    assert told in err and "nothing was written" in err


def test_a_run_against_idemwatch_fails_and_writes_nothing(
    run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = results.as_plain(Seen(executions=2, effects=2))
    found = {"retried": {**run["cases"]["retried"], POSTGRES.name: broken}}
    monkeypatch.setattr(command, "missing", list)
    monkeypatch.setattr(command, "_run_cases", lambda *_: ({}, found))
    monkeypatch.setattr(command, "replace_whole", lambda *_: pytest.fail("written"))
    assert command.main([]) == 1
    assert f"retried: {POSTGRES.name}: 2 times" in capsys.readouterr().err


def test_missing_peers_are_named_with_what_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "missing", lambda: ["celery_once"])
    assert command.main([]) == 1
    assert capsys.readouterr().err == (
        "not installed: celery_once; `make comparison` installs them\n"
    )


def test_the_page_alone_is_written_again_from_the_last_run(
    run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[Path, bytes] = {}
    monkeypatch.setattr(command, "replace_whole", written.__setitem__)
    assert command.main(["--page"]) == 0
    assert written == {page.PAGE: page.render(run).encode()}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    """idemwatch alone: the peers are not installed here."""
    with ExitStack() as stack:
        servers = stack.enter_context(open_servers(tmp_path_factory.mktemp("comparison")))
        made = []
        for number, system in enumerate((POSTGRES, REDIS), 1):
            made.append(Site(system, servers, number))
            stack.callback(made[-1].close)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(lambda site: site.start(fast=False), made))
        yield made


@pytest.mark.worker
@pytest.mark.parametrize("name", QUICK)
def test_our_side_of_the_quickest_cases(sites: list[Site], name: str) -> None:
    with ThreadPoolExecutor(len(sites)) as pool:
        found = list(pool.map(CASES[name].run, sites))
    for one in found:
        assert CASES[name].judge(one).kind is Kind.GOOD, one
