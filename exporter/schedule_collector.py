"""Health, load, recommendations and runs of the schedules of one source.

The analysis (load map, health, plan) is a matter of the schedules, the capacity and the hour, and
is made anew when one of them changes; when schedules run is asked at each refresh.
Invariant: a row that is no schedule is counted and costs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.changes import without_duplicates
from idemwatch.scheduler.due import advance
from idemwatch.scheduler.gauges import Analysis, Runs, families, most_overdue
from idemwatch.scheduler.health import health
from idemwatch.scheduler.improvements import improvements
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.recommendations import Recommendation, worst
from idemwatch.scheduler.rows import TABLE
from prometheus_client.metrics_core import Metric

from .schedule_runs_store import due_times, successes


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class _Basis(NamedTuple):
    """All that an analysis depends on."""

    schedules: tuple[Schedule, ...]
    capacity: Capacity
    hour: datetime


class ScheduleCollector:
    """What is told of schedules. `read`: the source; `zone`: whose half hours are told.

    `link`: asked for the runs of schedules of the table; without it, and for those of another
    source, the next run is reckoned and the last one is not known.
    """

    name = "schedules"

    def __init__(
        self,
        read: Callable[[], Inventory],
        capacity: Callable[[], Capacity],
        link: PostgresLink | None,
        *,
        zone: str,
        namespace: str,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._read, self._capacity, self._link = read, capacity, link
        self._zone, self._namespace, self._now = zone, namespace, now
        self._basis: _Basis | None = None
        self._analysis: Analysis | None = None
        self._shown: Sequence[Recommendation] = ()
        self._next: dict[str, tuple[Schedule, datetime | None]] = {}
        self._succeeded: dict[str, datetime] = {}

    def collect(self) -> list[Metric]:
        inventory, now = self._read(), self._now()
        found = self._analysed(_Basis(inventory.schedules, self._capacity(), _hour(now)))
        found = replace(found, now=now, unreadable=len(inventory.problems))
        if self._link is not None and inventory.source == TABLE.source:
            found = self._with_runs(found, self._link)
        else:
            found = replace(found, runs=self._reckoned(found))
        return list(families(found))

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def _analysed(self, basis: _Basis) -> Analysis:
        if self._analysis is None or basis != self._basis:
            self._analysis, self._basis = self._made(basis), basis
        return self._analysis

    def _made(self, basis: _Basis) -> Analysis:
        schedules, capacity, hour = basis
        state = health(schedules, hour, capacity=capacity.slots, zone=self._zone)
        found = improvements(schedules, state, hour, capacity=capacity.slots)
        self._shown = worst(found, self._shown)
        return Analysis(
            now=hour,
            health=state,
            capacity=capacity,
            schedules=schedules,
            duplicates=len(without_duplicates(schedules)),
            recommendations=self._shown,
        )

    def _with_runs(self, found: Analysis, link: PostgresLink) -> Analysis:
        now, due = due_times(link)
        runs = {one: Runs(next_at=when.next_at, last_at=when.last_at) for one, when in due.items()}
        found = replace(found, now=now, runs=runs)
        told = [one.id for one in most_overdue(found)]
        latest = successes(link, self._namespace, told)
        # Records expire: what was seen to succeed did so, also when nothing tells of it any more.
        known = {one: at for one, at in self._succeeded.items() if one in due}
        self._succeeded = known | {one: max(at, known.get(one, at)) for one, at in latest.items()}
        for one, at in self._succeeded.items():
            runs[one] = replace(runs.get(one, Runs()), last_success_at=at)
        return found

    def _reckoned(self, found: Analysis) -> dict[str, Runs]:
        """The next runs of those that are told; each is reckoned once it has passed."""
        told = most_overdue(found)
        self._next = {one.id: self._next_of(one, found.now) for one in told}
        return {one: Runs(next_at=at) for one, (_, at) in self._next.items()}

    def _next_of(self, one: Schedule, now: datetime) -> tuple[Schedule, datetime | None]:
        known, at = self._next.get(one.id, (None, None))
        if known == one and (at is None or at > now):
            return one, at
        return one, advance(one, None, now).next_at


def _hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0)
