"""What a scenario came to, judged from notifications; the pieces that it is played with."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from idemwatch.alerts.thresholds import HEALTH, HOTSPOTS
from idemwatch.demo.commands import NAMES
from idemwatch.demo.crew import Crew
from idemwatch.demo.facility import reminder
from idemwatch.demo.fleet import crowd, fleet
from idemwatch.demo.scenarios import SCENARIOS, Scenario, Scene, judge
from idemwatch.demo.screen import delivered
from idemwatch.demo.services import CAPACITY
from idemwatch.demo.stage import Stage
from idemwatch.demo.webhook import Notification, Webhook, distinct
from idemwatch.demo.works import PPM_DAY
from idemwatch.scheduler.advice import advice_of
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.health import Health, health
from idemwatch.scheduler.planner import plan
from support.stores import wait_until

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STORM = SCENARIOS["duplicate-storm"]
PAGE = "IdempotencyHitRateHigh"


def told(
    name: str = PAGE, status: str = "firing", seconds: float = 9, severity: str = "critical",
    **labels: str,
) -> Notification:  # fmt: skip
    """A notification, some seconds after the trouble began."""
    at = BEGAN + timedelta(seconds=seconds)
    return Notification(name, severity, status, at, {"alertname": name, **labels})


BOTH = [told(), told(status="resolved", seconds=20)]


def test_the_names_of_the_command_are_those_of_the_scenarios() -> None:
    assert list(NAMES) == list(SCENARIOS)


def test_a_page_and_its_resolution_are_as_expected() -> None:
    outcome = judge(STORM, BOTH, BEGAN)
    assert outcome.as_expected
    assert outcome.told == (
        f"the page {PAGE} was delivered to the webhook 9.0 s after the trouble began, and its "
        "resolution 11.0 s later",
    )


@pytest.mark.parametrize(
    ("notifications", "said"),
    [
        ([], f"the alert {PAGE} was not delivered"),
        ([told()], f"the resolution of {PAGE} was not delivered"),
        ([told("StoreDown"), *BOTH], "paged for StoreDown"),
        ([told(seconds=-1, began="earlier"), *BOTH], f"paged for {PAGE}"),
        ([told(seconds=-2), told(status="resolved", seconds=-1)], f"{PAGE} was not delivered"),
    ],
    ids=["no page", "no resolution", "another page", "a page too early", "all too early"],
)
def test_anything_else_is_not(notifications: list[Notification], said: str) -> None:
    outcome = judge(STORM, notifications, BEGAN)
    assert not outcome.as_expected
    assert any(said in sentence for sentence in outcome.told)


def test_trouble_that_never_began_is_not_as_expected() -> None:
    assert not judge(STORM, BOTH, None).as_expected


def test_a_warning_wakes_nobody() -> None:
    warning = told("IdempotencyTaskHitRateHigh", severity="warning")
    assert judge(STORM, [*BOTH, warning], BEGAN).as_expected
    assert judge(SCENARIOS["calm"], [warning], None).as_expected


def test_calm_is_spoiled_by_a_page() -> None:
    assert judge(SCENARIOS["calm"], [], None).told == ("nobody was paged",)
    assert not judge(SCENARIOS["calm"], [told()], None).as_expected


def test_the_store_that_is_down_must_be_the_one_that_was_stopped() -> None:
    outage = SCENARIOS["redis-outage"]

    def pages(store: str) -> list[Notification]:
        return [told("StoreDown", store=store), told("StoreDown", "resolved", 20, store=store)]

    assert judge(outage, pages("redis"), BEGAN, outage.fires).as_expected
    assert not judge(outage, pages("postgres"), BEGAN, outage.fires).as_expected


def test_what_is_inhibited_must_fire_all_the_same() -> None:
    outage = SCENARIOS["redis-outage"]
    pages = [told("StoreDown", s, at, store="redis") for s, at in (("firing", 9), ("resolved", 20))]
    outcome = judge(outage, pages, BEGAN, set())
    assert "the alert CircuitOpen did not fire" in outcome.told
    assert not outcome.as_expected


# Scripts


class Broken:
    """Stands for all that a script may break: it knows what is broken now."""

    def __init__(self) -> None:
        self.now: set[str] = set()

    def breaks(self, what: str) -> Callable[..., None]:
        return lambda *_: self.now.add(what)

    def heals(self, what: str) -> Callable[..., None]:
        return lambda *_: self.now.discard(what)

    @contextmanager
    def traffic(self, pattern: str) -> Iterator[None]:
        self.now.add(pattern)
        try:
            yield
        finally:
            self.now.discard(pattern)


def scene_of(broken: Broken, notifications: list[Notification]) -> Scene:
    """A scene without processes."""

    class Cache:
        freeze, thaw = broken.breaks("redis"), broken.heals("redis")

    class FakeCrew:
        freeze_beats, thaw_beats = broken.breaks("beats"), broken.heals("beats")
        traffic = broken.traffic

    cache = Cache()
    stage = Stage("", "", "", "demo", cast(Any, None), cast(Any, cache))
    return Scene(stage, cast(Crew, FakeCrew()), lambda: notifications)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calm takes no time."""
    monkeypatch.setattr("idemwatch.demo.scenarios.CALM_SECONDS", 0.0)


TROUBLE = {"duplicate-storm": "duplicates", "redis-outage": "redis", "beat-stall": "beats"}
troubles = pytest.mark.parametrize(
    ("scenario", "what"), [(SCENARIOS[name], what) for name, what in TROUBLE.items()], ids=TROUBLE
)


@pytest.mark.usefixtures("at_once")
@troubles
def test_a_script_that_is_cut_short_heals_what_it_broke(scenario: Scenario, what: str) -> None:
    broken = Broken()
    script = scenario.script(scene_of(broken, []), scenario)
    next(script)
    assert broken.now == {what}
    script.close()
    assert broken.now == set()


@pytest.mark.usefixtures("at_once")
@troubles
def test_trouble_lasts_until_it_was_told_and_no_longer(scenario: Scenario, what: str) -> None:
    broken, notifications = Broken(), list[Notification]()
    scene = scene_of(broken, notifications)
    script = scenario.script(scene, scenario)
    next(script)
    assert scene.began is not None
    (expected,) = scenario.expects
    for status, left in (("firing", set[str]()), ("resolved", None)):
        assert next(script, None) is not None
        at, labels = scene.began + timedelta(seconds=1), dict(expected.labels)
        notifications.append(Notification(expected.alertname, "critical", status, at, labels))
        scene.fired |= scenario.fires
        phase = next(script, None)
        assert (broken.now if phase else None) == left


# Schedules


def health_of(configs: list[dict[str, Any]]) -> Health:
    return health([schedule_of(one) for one in configs], BEGAN, capacity=CAPACITY)


def test_the_fleet_is_healthy_but_for_one_half_hour() -> None:
    found = health_of(fleet())
    assert found.grade == "A"
    assert len(found.hotspots) == 1
    moves = advice_of(plan([schedule_of(one) for one in fleet()], BEGAN, capacity=CAPACITY))
    assert {one.urgency for one in moves} == {"critical"}


def test_the_crowd_makes_both_alerts_come_true_and_can_be_moved_apart() -> None:
    crowded = [*fleet(), *crowd()]
    found = health_of(crowded)
    assert found.score < HEALTH
    assert len(found.hotspots) > HOTSPOTS
    after = plan([schedule_of(one) for one in crowded], BEGAN, capacity=CAPACITY).after
    assert after.by_half_hour().max() <= 0.7


def test_reminders_of_far_away_maintenance_change_nothing_of_the_health() -> None:
    day = date.fromisoformat(PPM_DAY)
    recurring = {"cron_expression": "0 6 * * *", "duration_seconds": 3600, "client_id": "c"}
    reminders = [
        reminder({**recurring, "identifier": "p", "asset_id": f"p-{n}", "contact": "a@b.org"}, day)
        for n in range(60)
    ]
    with_them, without = health_of([*fleet(), *reminders]), health_of(fleet())
    assert with_them.score == without.score
    assert len(with_them.hotspots) == len(without.hotspots)


# The webhook

MESSAGE = {
    "version": "4",
    "receiver": "pagerduty",
    "status": "firing",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": PAGE, "severity": "critical", "job": "j"},
            "annotations": {"summary": "Too much"},
            "startsAt": "2026-03-01T12:00:00Z",
        }
    ],
}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    running = Webhook()
    yield running
    running.close()


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(f"{url}/pagerduty", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_page_that_comes_by_two_receivers_and_again_counts_once(webhook: Webhook) -> None:
    for receiver in ("pagerduty", "slack", "slack"):
        body = json.dumps({**MESSAGE, "receiver": receiver}).encode()
        assert post(webhook.url, body) == 200
    wait_until(lambda: bool(webhook.notifications()))
    (one,) = webhook.notifications()
    assert one.page
    assert (one.receiver, one.annotations["summary"]) == ("pagerduty", "Too much")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"version": "3"}', b'{"version": "4"}'])
def test_what_is_no_notification_is_refused(webhook: Webhook, body: bytes) -> None:
    assert post(webhook.url, body) == 400
    assert webhook.notifications() == []


@pytest.mark.parametrize(
    ("notification", "line"),
    [
        (told("StoreDown"), "page delivered: StoreDown: redis hangs. It is 0."),
        (told("A", severity="info"), "alert (info) delivered: A: redis hangs. It is 0."),
        (told("StoreDown", "resolved"), "resolution delivered: StoreDown"),
    ],
    ids=["page", "info", "resolved"],
)
def test_what_is_delivered_is_told_in_a_line(notification: Notification, line: str) -> None:
    words = {"summary": "redis hangs", "description": "It is 0."}
    assert delivered(replace(notification, annotations=words)) == line


def test_an_alert_that_begins_anew_is_another_page() -> None:
    again = Notification(PAGE, "critical", "firing", BEGAN, {"alertname": PAGE}, began="later")
    assert len(distinct([told(), told(seconds=99), again])) == 2
