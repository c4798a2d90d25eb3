"""What the beats did and left undone: ticks, due times by outcome, schedules that are overdue.

The database's clock decides what is live and what is overdue. Invariant: nothing told here needs
the schedules to be read or analysed, so that a beat that stands still is seen in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from idemwatch.scheduler.gauges import LIVE, OUTCOMES, Beats, beat_families
from prometheus_client.metrics_core import Metric

from .read_only_store import read
from .schedule_runs_store import moment

# A tick beyond tomorrow, as 'infinity', is none: it would stand before all others for ever.
TICKS: Final = """
SELECT extract(epoch FROM max(last_tick_at))::float8,
       count(*) FILTER (WHERE last_tick_at > clock_timestamp() - make_interval(secs => %(live)s))
  FROM schedule_beat WHERE last_tick_at < clock_timestamp() + interval '1 day'
"""
# `execution_count` covers what was fired late. As float8: no sum is too large for it.
FIRINGS: Final = """
SELECT coalesce(sum(execution_count) - sum(late_count), 0)::float8,
       coalesce(sum(missed_count), 0)::float8, coalesce(sum(late_count), 0)::float8,
       coalesce(sum(skipped_count), 0)::float8
  FROM schedule
"""
# By the index schedule_due: what is not due yet is not read.
OVERDUE: Final = """
SELECT count(*) FROM schedule
 WHERE status IN ('PENDING', 'IN_PROGRESS') AND next_due_at <= statement_timestamp()
   AND next_due_at + make_interval(secs => misfire_grace_seconds) < statement_timestamp()
"""


class Firings:
    """Due times by outcome, counted from the first look on.

    The table has a sum a schedule, and loses it with the schedule. Prometheus takes a counter that
    falls for one that began anew, and would count all that is left once more; so only what is added
    counts here, and a restart begins at 0, as counters do.
    """

    def __init__(self) -> None:
        self._before: Mapping[str, float] | None = None
        self.counts = dict.fromkeys(OUTCOMES, 0.0)

    def seen(self, sums: Mapping[str, float]) -> None:
        """The sums of the table now."""
        before = self._before or sums
        for outcome, value in sums.items():
            self.counts[outcome] += max(0, value - before[outcome])
        self._before = sums


class BeatCollector:
    """Beats and due times of the table."""

    name = "beats"

    def __init__(self, link: PostgresLink) -> None:
        self._link = link
        self._firings = Firings()

    def collect(self) -> list[Metric]:
        (tick, live), sums, overdue = read(self._link, _asked)
        self._firings.seen(sums)
        found = Beats(
            firings=self._firings.counts, overdue=overdue, last_tick=moment(tick), live=live
        )
        return list(beat_families(found))

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        self._link.close()


def _asked(connection: Connection) -> tuple[tuple[float | None, int], dict[str, float], int]:
    tick, live = connection.execute(TICKS, {"live": LIVE.seconds}).fetchone() or (None, 0)
    sums = connection.execute(FIRINGS).fetchone() or (0, 0, 0, 0)
    (overdue,) = connection.execute(OVERDUE).fetchone() or (0,)
    return (tick, live), dict(zip(OUTCOMES, sums, strict=True)), overdue
