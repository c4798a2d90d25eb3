"""Idempotent tasks that run where they are sent, over records in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from celery import Celery
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.metrics import REGISTRY
from idemwatch.idempotency.record import Claim, Record


class Bench:
    """An app in eager mode, the store of its records, and a count of the work done."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.runs: Counter[Any] = Counter()
        self.app = Celery("eager", broker="memory://", set_as_current=False)
        self.app.conf.update(task_always_eager=True, task_eager_propagates=True)

    def task(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        """An idempotent task with a name of its own; without a function, one that counts."""
        name = f"tests.{uuid4().hex}"
        made = self.app.task(name=name, base=IdempotentTask, shared=False, **options)
        return made(self._work() if function is None else function)

    def _work(self) -> Callable[..., Any]:
        def work(x: Any, y: Any = 0, user_id: Any = None, device_id: Any = None) -> list[Any]:
            self.runs[x] += 1
            return [x, self.runs.total()]

        return work

    def hold(self, task: Any, *args: Any, **changed: Any) -> Claim:
        """Another worker has the key of a call."""
        call = task.idempotency_key_of(*args)
        given = {"owner": uuid4().hex, "authority": "postgres", "fingerprint": call.fingerprint}
        claim = Claim(key=call.key, **{**given, **changed})
        assert self.store.claim(claim).granted
        return claim

    def record(self, task: Any, *args: Any) -> Record | None:
        """The record of a call."""
        found = self.store.find(task.idempotency_key_of(*args).key)
        return None if found is None else found.record


def claims(task: Any, outcome: str, scope: str = "global") -> float:
    """How many checks of a task were answered so."""
    return counted("claims", task, scope=scope, outcome=outcome)


def counted(what: str, task: Any, **labels: str) -> float:
    """A counter of a task; 0 where it has none."""
    given = {"task": task.name, **labels}
    return REGISTRY.get_sample_value(f"idemwatch_{what}_total", given) or 0
