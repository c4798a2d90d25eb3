"""Copies of one message, as a broker that delivers again and again has them: same id, same body."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import redis
from celery import Celery

QUEUE = "celery"
_TEMPLATE = "storm-template"
_BATCH = 1000


class Message:
    """One message that was not sent yet. Its copies differ in the tag of their delivery alone."""

    def __init__(self, app: Celery, client: redis.Redis, task: str, args: tuple[Any, ...]) -> None:
        self._client = client
        app.send_task(task, args=args, queue=_TEMPLATE)
        raw = client.lpop(_TEMPLATE)
        assert isinstance(raw, bytes)
        self._message = json.loads(raw)
        self._message["properties"]["delivery_info"] = {"exchange": "", "routing_key": QUEUE}
        self.id = str(self._message["headers"]["id"])

    def push(self, copies: int, *, other_ids: bool = False) -> None:
        """Put so many copies into the queue; with an id of its own each, if that is asked for."""
        for begun in range(0, copies, _BATCH):
            with self._client.pipeline(transaction=False) as pipe:
                for _ in range(min(_BATCH, copies - begun)):
                    pipe.lpush(QUEUE, self._copy(other_ids))
                pipe.execute()

    def _copy(self, other_ids: bool) -> str:
        self._message["properties"]["delivery_tag"] = str(uuid4())
        if other_ids:
            name = str(uuid4())
            self._message["headers"] |= {"id": name, "root_id": name}
            self._message["properties"]["correlation_id"] = name
        return json.dumps(self._message)
