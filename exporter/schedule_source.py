"""The schedules that the exporter looks at, read again at each refresh.

What runs take is asked seldom: it moves with every run, and each move would be another analysis.
Invariant: a source that can never be read is an error at start; one that is away is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.command_options import MEASURED
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.sources import OPTION, SERVERS, read_source
from idemwatch.scheduler.table_source import Durations, durations_on, measured

from .read_only_store import read
from .table_reader import TableReader

log = logging.getLogger(__name__)

TABLE: Final = "table"
DURATIONS_SECONDS: Final = 600.0
"""How long measured durations are gone by."""
MEASURING_SECONDS: Final = 50.0
"""How long a statement may take that measures them: by all firings of a week."""


class ScheduleSource:
    """Reads the source `given`; None: the table, else the app's beat_schedule.

    `link`: where durations are measured, and the table is read.
    """

    def __init__(
        self,
        given: str | None,
        *,
        app: Any | None,
        settings: Settings,
        link: PostgresLink | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = given or (TABLE if link is not None else "beat")
        self._app, self._settings, self._link, self._clock = app, settings, link, clock
        self._table = None if link is None else TableReader(link)
        self._last: tuple[Inventory, Durations, Inventory] | None = None
        self._durations = Durations()
        self._tasks: frozenset[str] = frozenset()
        self._measured_at = float("-inf")

    def check(self) -> None:
        """Raise ConfigurationError for a source that can never be read; no server is asked."""
        if self._source.endswith(":-") or self._source == "-":
            raise ConfigurationError(
                OPTION, "standard input is read only once; give the exporter a file"
            )
        if self._source == TABLE and self._link is None:
            raise ConfigurationError(
                OPTION, "table needs the database: set IDEMWATCH_DATABASE_URL, or --database-url"
            )
        if self._source in SERVERS and self._source != TABLE and self._app is None:
            raise ConfigurationError(
                OPTION, f"{self._source} needs an app: celery -A proj idemwatch exporter"
            )
        if self._source not in SERVERS or self._source == "beat":
            self._read()

    def read(self) -> Inventory:
        """The schedules as they are now, with durations that were measured."""
        inventory = self._read()
        if self._link is None or inventory.source not in (*MEASURED, TABLE):
            return inventory
        found = self._found(self._link, inventory)
        # The very same while nothing has changed: to make and to compare 10,000 takes its time.
        if self._last is None or self._last[0] is not inventory or self._last[1] is not found:
            self._last = inventory, found, measured(inventory, found)
        return self._last[2]

    def _read(self) -> Inventory:
        if self._source == TABLE and self._table is not None:
            return self._table.read()
        return read_source(self._source, app=self._app, settings=self._settings)

    def _found(self, link: PostgresLink, inventory: Inventory) -> Durations:
        tasks = frozenset(one.task for one in inventory.schedules)
        old = self._clock() - self._measured_at > DURATIONS_SECONDS
        if old or tasks != self._tasks:
            try:
                self._durations = self._measured(link, inventory)
            except StoreUnavailable as error:
                if inventory.source == TABLE:
                    raise
                log.debug("durations are those of before: %s", error)
                return self._durations
            self._tasks, self._measured_at = tasks, self._clock()
        return self._durations

    def _measured(self, link: PostgresLink, inventory: Inventory) -> Durations:
        namespace = self._settings.namespace
        return read(link, lambda c: durations_on(c, namespace, inventory), MEASURING_SECONDS)
