"""How many runs the workers can take at once, and who said so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from idemwatch.alerts.thresholds import CAPACITY
from idemwatch.idempotency.settings import Settings

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.0
"""How long workers are given to answer."""


class Capacity(NamedTuple):
    """`slots`, and their `source`: option, workers, setting or default."""

    slots: float
    source: str


def capacity_of(given: float | None, app: Any | None, settings: Settings) -> Capacity:
    """What was given, else the sum of the live workers' concurrency, else the setting, else 14."""
    if given is not None:
        return Capacity(given, "option")
    living = 0 if app is None else _of_workers(app)
    if living:
        return Capacity(living, "workers")
    if settings.schedule_capacity is not None:
        return Capacity(settings.schedule_capacity, "setting")
    return Capacity(CAPACITY, "default")


def _of_workers(app: Any) -> int:
    from kombu.exceptions import OperationalError

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=ANSWER_SECONDS)
            inspect = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
            return concurrency(inspect.stats() or {})
    except (OperationalError, OSError) as error:
        log.warning("workers cannot be asked for their concurrency: %s", type(error).__name__)
        return 0


def concurrency(stats: Mapping[str, Any]) -> int:
    """The sum of the pools' sizes, from what workers answer to `inspect stats`."""
    pools = [answer.get("pool") or {} for answer in stats.values()]
    return sum(int(pool.get("max-concurrency") or 0) for pool in pools)
