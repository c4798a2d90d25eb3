"""A beat of which any number may run: `celery -A proj beat -S idemwatch.scheduler.beat:Scheduler`.

All beats read one table. Each due time is claimed by one of them, in the statement that advances
its schedule, and is published by whichever holds the lock on its row. A beat that dies or freezes
in between leaves it to the others; at worst a message is published twice, with one task id, and the
claim of its IdempotentTask turns the second away.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from typing import Any, Final

import celery.beat
from idemwatch.idempotency.app_settings import settings_of
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError, StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.stores import Stores

from .due import Advance, advance
from .errors import BrokerUnavailable, InvalidSchedule, ScheduleConflict
from .firing import Step, task_id_of
from .firing_store import FROZEN_SECONDS, FiringStore
from .outbox import Clerk, Frozen
from .publisher import Publisher, message_of
from .rows import NAMES, schedule_of_row

log = logging.getLogger(__name__)

MAX_INTERVAL_SECONDS: Final = 5.0
"""The longest sleep: a new schedule, or what a dead beat left, waits no longer."""
BUSY_SECONDS: Final = 0.1
"""The shortest one, while others hold what is due."""
RETRY_SECONDS: Final = 1.0
CLAIMED_AT_ONCE: Final = 500
"""Schedules that one claim advances."""
DUE_TIMES_AT_ONCE: Final = 2000
"""Due times that it takes of them, if one each is not more: they are published before the next."""
BYTES_AT_ONCE: Final = 32 * 1024 * 1024
"""Of the messages of one schedule."""
PUBLISHED_AT_ONCE: Final = 20
"""Messages that a beat which dies may have published without saying so."""
TICK_SECONDS: Final = 5.0


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's scheduler interface, over the table."""

    max_interval = MAX_INTERVAL_SECONDS
    sync_every = float("inf")  # nothing is kept here

    def setup_schedule(self) -> None:
        """Called once, unless `lazy`. Ends the process when no database is configured."""
        settings = settings_of(self.app)
        if settings.database_url is None:
            problem = "is not set, and the beat's table needs it: postgresql://user@host/database"
            error = ConfigurationError("idempotency_database_url", problem)
            raise SystemExit(f"idemwatch: {error}")
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._link = PostgresLink(settings.database_url, pooled=settings.database_pooled)
        self._firings = FiringStore(self._link, self.name)
        self._stores = Stores(settings)
        self._publisher = Publisher(self.app)
        self._clerk = Clerk(self.app, self._publisher, self._stores)
        self._synced = not settings.sync_beat_schedule
        self._ticked_at = float("-inf")
        self._trouble = ""
        log.info("beat %s reads its schedules from PostgreSQL", self.name)

    def tick(self, *_: Any, **__: Any) -> float:
        """One turn; the seconds to sleep. Servers that are away are waited for."""
        try:
            wait = self._turn()
        except (StoreUnavailable, BrokerUnavailable, ScheduleConflict) as error:
            self._tell(str(error))
            return RETRY_SECONDS
        except Frozen:
            log.warning("beat %s was frozen with messages in hand; it lets go of them", self.name)
            return BUSY_SECONDS
        self._tell("")
        return wait

    def _tell(self, trouble: str) -> None:
        """Say it when it begins and when it ends."""
        if trouble and not self._trouble:
            log.error("schedules wait: %s", trouble)
        elif self._trouble and not trouble:
            log.info("schedules go on")
        self._trouble = trouble

    def _turn(self) -> float:
        if time.monotonic() - self._ticked_at >= TICK_SECONDS:
            self._firings.tick()
            self._firings.forget_beats()
            self._ticked_at = time.monotonic()
        if not self._synced:
            self._sync()
        # What was claimed goes out first. While the broker is away nothing more is claimed, so that
        # what is due meanwhile is caught up as its schedule says.
        if self._publish():
            return 0.0
        more = self._claim()
        more = self._publish() or more
        return 0.0 if more else self._sleep_seconds()

    def _sync(self) -> None:
        from .sync_store import entries_of, sync

        sync(self._link, entries_of(self.app))
        self._synced = True

    def _sleep_seconds(self) -> float:
        wake = self._firings.wake_seconds()
        longest = float(self.max_interval)
        return longest if wake is None else min(max(wake, BUSY_SECONDS), longest)

    def _claim(self) -> bool:
        """Claim what is due; whether there may be more."""
        rows = self._firings.due(CLAIMED_AT_ONCE)
        most = max(1, DUE_TIMES_AT_ONCE // max(1, len(rows)))
        steps = [_step(row, most) for row in rows]
        claimed = self._firings.advance(steps) if steps else {}
        ours = [step for step in steps if step.row["id"] in claimed]
        for step in ours:
            if missed := claimed[step.row["id"]]:
                name = step.row["identifier"]
                log.warning("%d due times of %s are past their grace: missed", missed, name)
        return bool(ours) and (len(rows) >= CLAIMED_AT_ONCE or any(one.behind for one in ours))

    def _publish(self) -> bool:
        """Publish what waits; whether there may be more."""
        self._publisher.connect()  # may take long, and holds no row
        with self._firings.outbox(PUBLISHED_AT_ONCE) as outbox:
            locked_at = time.monotonic()
            # A beat that was stopped (SIGSTOP) for long may no longer hold its rows.
            end = self._clerk.work(
                outbox, lambda: time.monotonic() - locked_at > FROZEN_SECONDS / 2
            )
        if end is not None:
            raise end
        return len(outbox.firings) >= PUBLISHED_AT_ONCE

    def close(self) -> None:
        """Called at the end, also of a beat that never began."""
        if getattr(self, "_link", None) is None:
            return
        try:
            self._firings.leave()
        except IdempotencyError:
            log.info("PostgreSQL is away: beat %s ends without saying so", self.name)
        self._publisher.close()
        self._stores.close()
        self._link.close()

    @property
    def info(self) -> str:
        """A line of Celery's banner."""
        return "       . table -> schedule (PostgreSQL)"


def _step(row: dict[str, Any], most: int) -> Step:
    """What a row asks for. One that cannot be read never fires, and is told once."""
    columns = {name: row[name] for name in NAMES}
    try:
        schedule = schedule_of_row(columns)
        message = message_of(schedule)
        most = max(1, min(most, BYTES_AT_ONCE // len(message)))
        planned, since = row["next_due_at"], row["updated_at"]
        found = advance(schedule, planned, row["now"], since=since, most=most)
    except (InvalidSchedule, OverflowError) as error:  # beyond the last day of the calendar
        log.error("schedule %s (%s) never fires: %s", row["id"], row["identifier"], error)
        return Step(row, Advance((), None), "", ())
    ids = [task_id_of(row["id"], one.at) for one in found.due]
    return Step(row, found, message, ids)
