"""What a worker pays for one claim and its end, without Celery: the engine, with its counts.

Each call of an operation works on a key of its own.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from idemwatch.idempotency import metrics
from idemwatch.idempotency.engine import Engine, new_owner
from idemwatch.idempotency.record import Answer, Claim

from .measure import names

TASK: Final = "bench.work"
FINGERPRINT: Final = "0" * 32
TASK_ID: Final = "6b3c36a0-6b0e-4c9a-9a4e-0d4a2f0f6e11"
TTL: Final = timedelta(hours=24)
RESULT: Final = {"sent": 3}


def claim_of(key: str, authority: str) -> Claim:
    """A claim by a new owner, as that of a typical message."""
    return Claim(
        key=key,
        owner=new_owner(),
        authority=authority,
        fingerprint=FINGERPRINT,
        task_id=TASK_ID,
        endpoint=TASK,
    )


class Work:
    """Claims and completions through one engine."""

    def __init__(self, engine: Engine, authority: str) -> None:
        self._engine = engine
        self._authority = authority
        self._store = engine.stores.get(authority)
        self._keys = names(f"{TASK}:{authority}")
        metrics.announce(TASK, "global")

    def _asked(self, key: str) -> tuple[Claim, Answer]:
        claim = claim_of(key, self._authority)
        answer = self._engine.claim(self._store, claim)
        self._engine.count(claim, answer.outcome, TASK)
        return claim, answer

    def claim_new(self) -> None:
        """A claim of a key that nobody has."""
        _, answer = self._asked(next(self._keys))
        assert answer.granted

    def claim_complete(self) -> str:
        """A claim, its lease in the heartbeat, and its result; the key."""
        key, claimed_at = next(self._keys), time.monotonic()
        claim, answer = self._asked(key)
        assert answer.granted
        lease = self._engine.hold(self._store, claim, answer, task=TASK, claimed_at=claimed_at)
        result = self._engine.encode(RESULT, "json", TTL, TASK)
        completion = self._engine.complete(lease, result)
        metrics.completions(TASK, str(completion)).inc()
        return key

    def duplicate(self, key: str) -> None:
        """A claim of a key whose work is finished."""
        _, answer = self._asked(key)
        assert not answer.granted and answer.record is not None
