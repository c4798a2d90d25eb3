"""A process that publishes tasks with idempotency_at_publish, and what its workers would do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.app_settings import settings_of
from idemwatch.idempotency.engine import Engine, close_engines, engine_for
from idemwatch.idempotency.record import Claim
from idemwatch.idempotency.store import Held, Result
from kombu import pools

from support.stores import HOUR_US


class Desk:
    """A publisher: its app, one task with the option, and the queue that nobody empties."""

    def __init__(self, broker: str, conf: dict[str, Any], **options: Any) -> None:
        self.app = Celery("desk", broker=broker, backend="cache+memory://", set_as_current=False)
        self.app.conf.update(task_publish_retry=False, **conf)
        self.task = self.made(**options)
        self._queue = redis.Redis.from_url(broker)

    def made(self, **options: Any) -> Any:
        name = f"tests.{uuid4().hex}"
        given = {"idempotency_at_publish": True, **options}
        return self.app.task(name=name, base=IdempotentTask, shared=False, **given)(work)

    @property
    def messages(self) -> int:
        """How many messages were published."""
        return int(self._queue.llen("celery"))

    @property
    def engine(self) -> Engine:
        return engine_for(settings_of(self.app))

    def claim(self, *args: Any, **changed: Any) -> Held:
        """A worker takes the message of a call."""
        call = self.task.idempotency_key_of(*args)
        options = self.task.idempotency_options
        given = {"owner": uuid4().hex, "fingerprint": call.fingerprint, **changed}
        claim = Claim(key=call.key, authority=options.authority, **given)
        answer = self.engine.stores.get(options.store).claim(claim)
        assert answer.granted
        return Held(claim=claim, fence=answer.fence, created_us=answer.fence)

    def finish(self, held: Held, task_id: str | None = None) -> None:
        """The worker has done the work, and stored its result for the caller if told the id."""
        store = self.engine.stores.get(self.task.idempotency_options.store)
        assert store.complete(held, Result(HOUR_US, b"1", "application/json")) == "stored"
        if task_id is not None:
            self.app.backend.mark_as_done(task_id, 1)

    def deliver(self, task_id: str, *args: Any) -> Any:
        """A worker gets the message of a call."""
        self.task.push_request(id=task_id, called_directly=False)
        try:
            return self.task(*args)
        finally:
            self.task.pop_request()

    def close(self) -> None:
        close_engines()
        self._queue.close()
        pools.reset()  # kombu's, by broker
        self.app.close()


def work(x: int, y: int = 0, user_id: str = "") -> int:
    return x + y
