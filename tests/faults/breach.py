"""A breach of the guarantee, and the sentences of design.md that it is held against."""

from __future__ import annotations

from typing import Final, NamedTuple

ONE_HOLDER: Final = (
    "At most one live lease holder per key, while the deciding store keeps its data."
)
NOT_AGAIN: Final = "A finished piece of work is not done again while its record lives."
REPEATED: Final = "An attempt that died or lost its lease is repeated, and counted."
ONCE: Final = (
    "Its effect happens exactly once, within the record's lifetime, if it commits in the same "
    "PostgreSQL transaction as its record, or if its target refuses a second effect with the "
    "same key"
)
LATE_WRITES: Final = (
    "a target that checks the fencing token refuses the late writes of an older holder."
)
NEVER_LOST: Final = (
    "Work is never lost by being taken for a duplicate: a message is turned away for good only "
    "when a finished result exists, when another message for it is sure to come, or loudly."
)
STALE: Final = (
    "complete, park, release, renew name owner and fence in one conditional write; the store "
    "refuses a stale one."
)
OWN_CLAIM: Final = (
    "Claiming again with the same owner grants again: a lost reply must not lock us out of our "
    "own key."
)
NO_CRASH: Final = (
    "A claim whose reply never came is queued for release, so that it does not count as a crash."
)
FENCE: Final = "fence = max(previous + 1, the store's clock in microseconds)."
WAITING: Final = (
    "WAITING(task_id, attempt+1): `running` to other ids, open to the same id at that attempt or "
    "later."
)
FAILURES: Final = "failures are never replayed as success."
MISMATCH: Final = "mismatch: same key, other arguments."
FORGET: Final = (
    "`forget` leaves a tombstone in the cache, so that a late writer cannot bring the record back."
)
SUCCESSOR: Final = (
    "A holder whose completion is refused behaves like a duplicate that met its successor."
)
CACHE: Final = "Redis only ever answers what PostgreSQL has finished."
COUNTERS: Final = "the Prometheus counters are exact."


class Breach(NamedTuple):
    """What is broken, at which key, and what was seen."""

    sentence: str
    key: str
    told: str
