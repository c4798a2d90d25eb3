"""The place of `idempotency_at_publish` among a task's bases: just before Celery's own publishing.

An `apply_async` of the user's own, which may add arguments or headers, runs first, so that a call
is known by what its message will say. A task without the option has none of this.
"""

from __future__ import annotations

from typing import Any

from .publishing import publish_once
from .task import IdempotentTask


class PublishingTask(IdempotentTask):
    """A task that looks before it publishes."""

    abstract = True

    def apply_async(  # type: ignore[no-untyped-def]
        self,
        args=None,
        kwargs=None,
        task_id=None,
        producer=None,
        link=None,
        link_error=None,
        shadow=None,
        **options,
    ) -> Any:
        named = {"task_id": task_id, "producer": producer, "link": link}
        named |= {"link_error": link_error, "shadow": shadow}
        given = {**options, **{name: value for name, value in named.items() if value is not None}}
        publish = super().apply_async

        def send(own_id: str | None) -> Any:
            own = {} if own_id is None else {"task_id": own_id}
            return publish(args, kwargs, **{**given, **own})

        return publish_once(self, args, kwargs, given, send)


def make_publishing(cls: type[IdempotentTask]) -> None:
    """Put PublishingTask between a task's class and what it has of IdempotentTask."""
    if issubclass(cls, PublishingTask):
        return
    bases = cls.__bases__
    if IdempotentTask in bases:
        cls.__bases__ = tuple(PublishingTask if b is IdempotentTask else b for b in bases)
    else:
        cls.__bases__ = (*bases, PublishingTask)
