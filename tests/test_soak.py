"""The soak's judgement: what grows and what does not, and whether each message is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from soak.command import Report, main
from soak.load import SHARES
from soak.verdict import SERVICE, Total, totals, trends

SAMPLES = 100
WORKS = Counter(dict.fromkeys(SHARES, 10))
MESSAGES = Counter(dict.fromkeys(SHARES, 14))


def series(name: str, value: Callable[[int], float]) -> Report:
    samples = [{"seconds": 10.0 * n, name: value(n)} for n in range(SAMPLES)]
    return Report(1000, 1, trends(samples), [], samples)


@pytest.mark.parametrize(
    ("name", "value", "flat"),
    [
        ("worker, MB", lambda _: 80, True),
        ("worker, MB", lambda n: min(80, 20 + 3 * n), True),  # while it warms up
        ("worker, MB", lambda n: 80 + 40 * (n % 9 == 0), True),  # a spike now and then
        ("worker, MB", lambda n: 80 + n % 10, True),  # a saw, as of children that come and go
        ("worker, MB", lambda n: 80 - n / 10, True),
        ("worker, MB", lambda n: 80 + n / 10, False),
        ("worker, files", lambda n: 30 + n // 10, False),
        ("connections to Redis", lambda n: 12 + n // 10, False),
        ("records in PostgreSQL", lambda n: n, True),  # as many as there is work
    ],
)
def test_what_goes_on_growing_after_the_warm_up_fails(
    name: str, value: Callable[[int], float], flat: bool
) -> None:
    report = series(name, value)
    assert report.passed is flat
    assert (report.text().endswith("passed"), report.as_json()["passed"]) == (flat, flat)


def exact() -> tuple[dict[str, tuple[int, int]], dict[str, Counter[str]]]:
    """Effects and claims of a run in which all went well: of four copies one met a running one."""
    effects = dict.fromkeys(SHARES, (10, 10)) | {"fails": (14, 10)}
    claims = {
        f"soak.{kind}": Counter(granted=10, duplicate=3, running=1)
        for kind in SHARES
        if kind not in SERVICE
    }
    claims["soak.retries"]["granted"] = 20  # each attempt is granted
    claims["soak.fails"] = Counter(granted=14, running=2)  # a failure is no result
    claims["service"] = Counter(granted=20, duplicate=8, running=5)
    return effects, claims


def wrong(found: list[Total]) -> list[str]:
    return [one.what for one in found if not one.exact]


def test_a_run_in_which_all_went_well_is_exact() -> None:
    effects, claims = exact()
    assert wrong(totals(WORKS, MESSAGES, effects, claims, counters=10)) == []


def test_what_is_lost_or_done_twice_or_not_counted_is_told() -> None:
    effects, claims = exact()
    effects |= {"postgres": (11, 10), "redis": (9, 9)}
    claims["soak.once"] = Counter()
    claims["soak.locks"]["duplicate"] -= 1
    claims["service"]["taken_over"] = 1
    found = wrong(totals(WORKS, MESSAGES, effects, claims, counters=9))
    assert sorted(found) == [
        "counted under locks", "locks: duplicates", "postgres: effects", "redis: effects",
        "redis: works done", "taken_over, all tasks",
    ]  # fmt: skip


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "9999", "soon"])
def test_a_length_that_tells_nothing_is_refused_at_once(
    minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--minutes={minutes}"])
    assert ended.value.code == 2 and minutes in capsys.readouterr().err
