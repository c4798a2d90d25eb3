"""What the tables tell of the runs of schedules: when they are due, were fired, and succeeded.

Invariant: success is asked of so many schedules only, and of each so many firings by an index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from idemwatch.idempotency.postgres_link import Connection, PostgresLink

from .read_only_store import read

FIRINGS_LOOKED_AT: Final = 10
"""The last ones of a schedule, among which a run that succeeded is looked for."""
_LAST_YEAR: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()

# Times are asked for as numbers: 'infinity' is a number too, and no value of datetime.
DUE: Final = """
SELECT id::text, extract(epoch FROM next_due_at)::float8,
       extract(epoch FROM last_execution_at)::float8,
       extract(epoch FROM statement_timestamp())::float8
  FROM schedule WHERE status IN ('PENDING', 'IN_PROGRESS')
"""
# By rows and not by `schedule_id = g.id`: then the index by due_at seems to be in the right order
# too, and would be read to its end for a schedule that seldom fires.
SUCCESSES: Final = """
SELECT g.id::text, extract(epoch FROM max(r.completed_at))::float8
  FROM unnest(%(ids)s::bigint[]) AS g (id)
 CROSS JOIN LATERAL (
       SELECT record_key FROM schedule_firing
        WHERE (schedule_id, due_at)
              BETWEEN (g.id, timestamptz '-infinity') AND (g.id, timestamptz 'infinity')
        ORDER BY schedule_id DESC, due_at DESC LIMIT %(looked_at)s) AS f
  JOIN idempotency_record AS r ON r.key = %(head)s || f.record_key
 WHERE r.state = 'done'
 GROUP BY g.id
"""


class Due(NamedTuple):
    """`next_at` in the past: due, and nobody has fired it. None: not planned yet, or never."""

    next_at: datetime | None
    last_at: datetime | None


def due_times(link: PostgresLink) -> tuple[datetime, dict[str, Due]]:
    """The time by the database, and the due times of all active schedules by id."""
    rows = read(link, lambda connection: connection.execute(DUE).fetchall())
    found = {one: Due(moment(due), moment(last)) for one, due, last, _ in rows}
    now = moment(rows[0][3]) if rows else None
    return now or datetime.now(UTC), found


def successes(link: PostgresLink, namespace: str, ids: Sequence[str]) -> Mapping[str, datetime]:
    """When a run of each schedule ended last with a result that is still kept, by id."""
    given = {"ids": [int(one) for one in ids], "looked_at": FIRINGS_LOOKED_AT}

    def ask(connection: Connection) -> list[tuple[str, float | None]]:
        return connection.execute(SUCCESSES, {**given, "head": f"{namespace}:"}).fetchall()

    found = {one: moment(seconds) for one, seconds in read(link, ask)}
    return {one: moment for one, moment in found.items() if moment is not None}


def moment(seconds: float | None) -> datetime | None:
    """The time of seconds since 1970; None for one that is before, or no time of this world."""
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds < _LAST_YEAR:
        return None
    return datetime.fromtimestamp(seconds, UTC)
