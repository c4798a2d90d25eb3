"""Each scenario makes its alert come true, and wakes nobody for anything else.

The storm of duplicates is played in test_page_end_to_end.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from idemwatch.alerts.thresholds import HIT_RATE
from support.demo_run import Played, play

pytestmark = pytest.mark.worker
CALM_SECONDS = 45


def well_played(folder: Path, scenario: str, seconds: float = 150) -> Played:
    """A scenario that came to what it should, while each effect happened once."""
    played = play(folder, scenario, seconds)
    assert (played.code, played.err) == (0, ""), played.out
    assert played.summary["scenario"]["as_expected"] is True
    assert played.summary["effects_twice"] == played.summary["effects_lost"] == 0
    assert f"scenario {scenario}, as expected" in played.out
    return played


def told_and_resolved(played: Played, alertname: str) -> None:
    """Somebody was paged for this alone, and told when it was over."""
    assert played.paged == {alertname}
    (fired,) = played.delivered(alertname, "firing")
    (resolved,) = played.delivered(alertname, "resolved")
    assert fired["severity"] == "critical"
    assert fired["at"] < resolved["at"]


def test_calm_pages_nobody_though_there_are_duplicates(tmp_path: Path) -> None:
    played = well_played(tmp_path, "calm", CALM_SECONDS)
    assert played.summary["pages"] == played.summary["notifications"] == []
    assert played.summary["alerts"] == []
    assert 0 < played.summary["hit_rate"] < HIT_RATE / 2
    checks_a_minute = 60 * played.summary["checks"] / CALM_SECONDS
    assert checks_a_minute > 100, "with fewer the alert would be silent whatever the rate"


def test_a_redis_that_hangs_pages_and_loses_no_work(tmp_path: Path) -> None:
    played = well_played(tmp_path, "redis-outage")
    told_and_resolved(played, "StoreDown")
    (page,) = played.delivered("StoreDown", "firing")
    assert page["labels"]["store"] == "redis"
    # The breakers open too; Alertmanager tells the cause and not what follows from it.
    assert "CircuitOpen" in played.summary["alerts"]
    assert played.delivered("CircuitOpen", "firing") == []


def test_crowded_schedules_page_until_they_are_moved_apart(tmp_path: Path) -> None:
    played = well_played(tmp_path, "hotspots")
    told_and_resolved(played, "ScheduleHealthLow")
    assert "ScheduleHotspots" in played.summary["alerts"]
    assert played.delivered("ScheduleHotspots", "firing") == []


def test_beats_that_hang_page_once_and_not_for_each_schedule(tmp_path: Path) -> None:
    played = well_played(tmp_path, "beat-stall")
    told_and_resolved(played, "BeatStalled")
    assert played.delivered("ScheduleOverdue", "firing") == []
