"""Scenarios: trouble that is made for real, and healed when Alertmanager has told of it.

A script is a generator that says what goes on, each time that it is asked; closed at any point, it
heals what it broke. What it came to is judged by the notifications that the webhook got.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from .crew import Crew
from .fleet import crowd, insert
from .stage import Stage
from .webhook import Notification

CALM_SECONDS: Final = 10.0
"""Before the trouble begins: so nobody may be paged without it."""
LIMIT_SECONDS: Final = 240.0
"""A scenario that ends by itself is given up after so long, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert that must be delivered, and resolved when the trouble is over."""

    alertname: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def told(self, status: str, notifications: Iterable[Notification]) -> Notification | None:
        """The first notification that it is firing, or resolved; None without one."""
        return next(
            (
                one
                for one in notifications
                if one.status == status and one.about(self.alertname, self.labels)
            ),
            None,
        )


class Scene:
    """What a script may do and see. `began`: when the trouble did; None before."""

    def __init__(self, stage: Stage, crew: Crew, told: Callable[[], list[Notification]]) -> None:
        self.stage, self.crew, self._told = stage, crew, told
        self.began: datetime | None = None
        self.fired: set[str] = set()
        """Alerts that Prometheus has fired since, delivered or not."""

    def calm(self, seconds: float, phase: str) -> Iterator[str]:
        """Nothing is wrong, for some seconds."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            yield phase

    def begin(self) -> None:
        """From now on there is trouble."""
        self.began = datetime.now(UTC)
        self.fired.clear()

    def until_fired(self, scenario: Scenario, phase: str) -> Iterator[str]:
        """Until its alerts fire, and those of them that Alertmanager lets through are delivered."""
        while not (scenario.fires <= self.fired and self._all(scenario, "firing")):
            yield phase

    def until_resolved(self, scenario: Scenario, phase: str) -> Iterator[str]:
        """Until the end of them was delivered."""
        while not self._all(scenario, "resolved"):
            yield phase

    def _all(self, scenario: Scenario, status: str) -> bool:
        after = since(self.began, self._told())
        return all(one.told(status, after) for one in scenario.expects)


Phases = Generator[str, None, None]
Script = Callable[[Scene, "Scenario"], Phases]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Trouble, and what must come of it. Pages for anything else are a failure.

    `expects`: what must be delivered. `fires`: what must fire beside it, though Alertmanager tells
    the cause and is silent on what follows from it. `endless`: goes on until told to end.
    `own_redis`: needs a Redis that may be stopped.
    """

    name: str
    script: Script
    expects: tuple[Expected, ...] = ()
    fires: frozenset[str] = frozenset()
    endless: bool = False
    own_redis: bool = False

    @property
    def pages(self) -> set[str]:
        """The alerts that may page."""
        return {one.alertname for one in self.expects}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario came to, and the sentences that tell it."""

    scenario: str
    as_expected: bool
    told: tuple[str, ...]


def since(began: datetime | None, notifications: Iterable[Notification]) -> list[Notification]:
    """Those that came at `began` or later; none if there is no such time."""
    return [one for one in notifications if began is not None and one.at >= began]


def judge(
    scenario: Scenario,
    notifications: Iterable[Notification],
    began: datetime | None,
    fired: Collection[str] = (),
) -> Outcome:
    """Whether the expected alerts came after the trouble began and went, and nobody else paged."""
    told = list(notifications)
    after = since(began, told)
    good, bad = [], []
    for one in scenario.expects:
        first = one.told("firing", after)
        resolved = one.told("resolved", after)
        if first and resolved and began:
            good.append(_delivered(first, resolved, began))
        else:
            what = "resolution of" if first else "alert"
            bad.append(f"the {what} {one.alertname} was not delivered in time")
    silent = scenario.fires - set(fired)
    bad += [f"the alert {name} did not fire" for name in sorted(silent)]
    for page in told:
        if page.page and (page.alertname not in scenario.pages or page not in after):
            bad.append(f"somebody was paged for {page.alertname} {dict(page.labels)}")
    if not scenario.expects and not bad:
        good.append("nobody was paged")
    return Outcome(scenario.name, not bad, tuple(bad + good))


def _delivered(fired: Notification, resolved: Notification, began: datetime) -> str:
    kind = "page" if fired.page else "alert"
    return (
        f"the {kind} {fired.alertname} was delivered to the webhook "
        f"{(fired.at - began).total_seconds():.1f} s after the trouble began, and its resolution "
        f"{(resolved.at - fired.at).total_seconds():.1f} s later"
    )


def _calm(_: Scene, __: Scenario) -> Phases:
    while True:
        yield "calm"


def _duplicate_storm(scene: Scene, scenario: Scenario) -> Phases:
    yield from scene.calm(CALM_SECONDS, "calm before the storm")
    scene.begin()
    with scene.crew.traffic("duplicates"):
        yield from scene.until_fired(scenario, "a storm of duplicates")
    yield from scene.until_resolved(scenario, "calm after the storm")


def _redis_outage(scene: Scene, scenario: Scenario) -> Phases:
    cache = scene.stage.cache
    assert cache is not None, "see own_redis"
    yield from scene.calm(CALM_SECONDS, "all is well")
    scene.begin()
    cache.freeze()
    try:
        yield from scene.until_fired(scenario, "Redis hangs")
    finally:
        cache.thaw()
    yield from scene.until_resolved(scenario, "Redis answers again")


def _hotspots(scene: Scene, scenario: Scenario) -> Phases:
    yield from scene.calm(CALM_SECONDS, "healthy schedules")
    scene.begin()
    insert(scene.stage.database_url, crowd())
    yield from scene.until_fired(scenario, "schedules crowd together")
    scene.crew.run("repair")
    yield from scene.until_resolved(scenario, "schedules were moved apart")


def _beat_stall(scene: Scene, scenario: Scenario) -> Phases:
    yield from scene.calm(CALM_SECONDS, "the beats tick")
    scene.begin()
    scene.crew.freeze_beats()
    try:
        yield from scene.until_fired(scenario, "all beats hang")
    finally:
        scene.crew.thaw_beats()
    yield from scene.until_resolved(scenario, "the beats tick again")


SCENARIOS: Final[Mapping[str, Scenario]] = {
    one.name: one
    for one in (
        Scenario(name="calm", script=_calm, endless=True),
        Scenario(
            name="duplicate-storm",
            script=_duplicate_storm,
            expects=(Expected("IdempotencyHitRateHigh"),),
        ),
        Scenario(
            name="redis-outage",
            script=_redis_outage,
            expects=(Expected("StoreDown", {"store": "redis"}),),
            fires=frozenset(("CircuitOpen",)),
            own_redis=True,
        ),
        Scenario(
            name="hotspots",
            script=_hotspots,
            # More than three hotspots cost 40 points and more, so the health falls under 70 too.
            expects=(Expected("ScheduleHealthLow"),),
            fires=frozenset(("ScheduleHotspots",)),
        ),
        Scenario(name="beat-stall", script=_beat_stall, expects=(Expected("BeatStalled"),)),
    )
}
