"""The suite's own rules: what fails a run, and what results.json keeps."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from .catalogue import BENCHES
from .fleets import fleet
from .measure import OURS, Measured, against, medians
from .progress import Progress
from .report import Verdict, read_results, verdict, write_results
from .waivers import FILE, WaiverError, read_waivers

WAIVER = '[claim_new]\nreason = "not worth it"\nfinding = "80 % in the kernel"\n'


@pytest.mark.parametrize(
    ("value", "waived", "expected"),
    [
        (1.15, (), Verdict.OK),
        (1.1504, (), Verdict.OK),  # as results.json has it
        (1.16, (), Verdict.MISSED),
        (1.16, ("claim_new",), Verdict.WAIVED),
        (1.15, ("claim_new",), Verdict.WAIVED),
        (1.03, ("claim_new",), Verdict.NEEDLESS),
        (1.16, ("lock",), Verdict.MISSED),
    ],
)
def test_a_missed_goal_needs_a_waiver_and_one_met_by_far_has_none(
    value: float, waived: tuple[str, ...], expected: Verdict
) -> None:
    assert verdict("claim_new", Measured(value), waived) is expected


@pytest.mark.parametrize(
    ("value", "waived", "expected"),
    [
        (0.8, (), Verdict.OK),
        (0.79, (), Verdict.MISSED),
        (0.79, ("purge",), Verdict.WAIVED),
        (0.9, ("purge",), Verdict.NEEDLESS),
    ],
)
def test_of_some_more_is_better(value: float, waived: tuple[str, ...], expected: Verdict) -> None:
    assert verdict("purge", Measured(value), waived) is expected


def test_a_waiver_says_why_and_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    file.write_text(WAIVER)
    assert read_waivers(BENCHES, file)["claim_new"].finding == "80 % in the kernel"


@pytest.mark.parametrize(
    "text",
    [
        WAIVER.replace("claim_new", "claim_old"),
        '[claim_new]\nreason = "no finding"\n',
        WAIVER.replace("80 % in the kernel", " "),
        WAIVER + "at_most = 1.2\n",
        'claim_new = "no table"\n',
        "[claim_new",
    ],
)
def test_a_wrong_waiver_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "waivers.toml"
    file.write_text(text)
    with pytest.raises(WaiverError):
        read_waivers(BENCHES, file)


def test_the_waivers_of_the_repository_can_be_read() -> None:
    read_waivers(BENCHES, FILE)


def test_one_bench_leaves_the_other_figures_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    others = {name: {"value": 1.0, "goal": 2.0, "unit": "x"} for name in ("lock", "purge")}
    file.write_text(json.dumps(others))
    write_results({"claim_new": Measured(1.23456)}, file)
    found = read_results(file)
    assert found == {**others, "claim_new": {"value": 1.235, "goal": 1.15, "unit": "x"}}
    assert list(found) == ["claim_new", "lock", "purge"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_figure_is_the_median_of_the_pairs() -> None:
    measured = medians({OURS: [1.0, 9.0, 2.0], "peer": [3.0, 4.0, 5.0]}, [2e-6, 1e-6, 4e-6])
    assert measured == Measured(2.0, {"peer": 4.0}, "2 µs (best 1)")


def test_each_pair_is_measured_in_both_orders() -> None:
    calls: list[str] = []
    ticks = iter(range(100))
    measured = against(
        lambda: calls.append("ours"),
        lambda: calls.append("bare"),
        calls=1,
        turns=range(2),
        clock=lambda: float(next(ticks)),
    )
    assert calls == ["bare", "ours", "bare", "ours", "ours", "bare"]
    assert measured.value == 1.0


def test_progress_is_one_line_a_bench_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(2, stream)
    progress.begin("lock")
    progress.turn(1, 2)
    progress.finish("2.000")
    assert stream.getvalue() == "[1/2] lock: 2.000 (0 s)\n"


def test_a_fleet_is_told_by_its_size_and_seed() -> None:
    assert fleet(50) == fleet(50) != fleet(50, seed=1)
    pinned = [not one.movable for one in fleet(2000)]
    assert 150 < sum(pinned) < 250


def test_values_are_told_in_their_unit() -> None:
    assert BENCHES["key"].text(12.34) == "12.3 µs"
    assert BENCHES["plan_cpu_10k"].text(0.4321) == "0.432 s"
    assert BENCHES["lock"].text(2.1) == "2.100"
