"""How many live records there are by scope and state, counted a part of the table at a time.

Neither a count of a large table at each refresh nor an index by state for it would be cheap: the
first reads all of it, the second makes every claim dearer. So a table larger than `PAGES` is
counted a part a refresh, by ranges of its physical pages, and the parts are summed.

Invariant: a look reads at most so many pages, however large the table is. A table within them is
counted exactly each time; of a larger one, each part was counted within the last turn, and as long
as some were not, the sum is scaled by the pages that were.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from idemwatch.idempotency.postgres_link import Connection

PAGES: Final = 150
"""Pages a look, of 8 kB: some 3,500 small records. A million takes 75 minutes at 15 s a look."""
SIZE: Final = """
SELECT pg_relation_size('idempotency_record') / current_setting('block_size')::bigint
"""
# A range of ctid is read page by page (Tid Range Scan, PostgreSQL 14 and newer), and nothing else.
COUNT: Final = """
SELECT scope, state, count(*)
  FROM idempotency_record
 WHERE ctid >= %(first)s::text::tid AND ctid < %(end)s::text::tid
   AND starts_with(key, %(head)s) AND expires_at > statement_timestamp()
 GROUP BY scope, state
"""

Group = tuple[str, str]
"""A scope and a state."""
Shuffled = Callable[[int], list[int]]


class _Part(NamedTuple):
    pages: int
    counts: dict[Group, int]


def shuffled(parts: int) -> list[int]:
    """The parts in a random order: the first ones of a turn stand for all, old rows and new."""
    return random.sample(range(parts), parts)


class Census:
    """The counts of one table, for the records whose keys begin with `head`."""

    def __init__(self, head: str, pages: int = PAGES, order: Shuffled = shuffled) -> None:
        self._head, self._pages, self._order = head, pages, order
        self._parts: dict[int, _Part] = {}
        self._turn: list[int] = []
        self._total = 0

    def look(self, connection: Connection) -> None:
        """Count the next part. It is kept only if it was read to its end."""
        row = connection.execute(SIZE).fetchone()
        total = int(row[0]) if row else 0
        parts = -(-total // self._pages)
        turn = [one for one in self._turn if one < parts] or self._order(parts)
        known = {number: part for number, part in self._parts.items() if number < parts}
        if turn:
            known[turn[0]] = self._count(connection, turn[0], total)
        self._parts, self._turn, self._total = known, turn[1:], total

    def _count(self, connection: Connection, number: int, total: int) -> _Part:
        first = number * self._pages
        end = min(first + self._pages, total)
        given = {"first": f"({first},0)", "end": f"({end},0)", "head": self._head}
        rows = connection.execute(COUNT, given)
        return _Part(end - first, {(scope, state): count for scope, state, count in rows})

    @property
    def complete(self) -> bool:
        """Whether every page has been counted."""
        return self._seen >= self._total

    @property
    def _seen(self) -> int:
        return sum(part.pages for part in self._parts.values())

    def counts(self) -> dict[Group, int]:
        """Live records by scope and state, as far as they are known."""
        found: Counter[Group] = Counter()
        for part in self._parts.values():
            found.update(part.counts)
        if self.complete:
            return dict(found)
        scale = self._total / self._seen
        return {group: round(count * scale) for group, count in found.items()}
