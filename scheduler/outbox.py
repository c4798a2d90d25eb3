"""What becomes of a message in the outbox: published, missed, skipped, or kept for later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from idemwatch.idempotency.errors import IdempotencyError, StoreUnavailable
from idemwatch.idempotency.record import State
from idemwatch.idempotency.store import Found
from idemwatch.idempotency.stores import Stores
from idemwatch.idempotency.task import IdempotentTask

from .errors import BrokerUnavailable
from .firing_store import Firing, Mark, Outbox
from .model import Overlap
from .publisher import Publisher, headers_of

log = logging.getLogger(__name__)

LATER_SECONDS: Final = 1.0
FAULT_SECONDS: Final = 30.0
"""How long a message that cannot be published for a fault of its own waits for a mended one."""


class Frozen(Exception):
    """This process stood still for so long that its locks may be gone."""


class Clerk:
    """Works through locked firings."""

    def __init__(self, app: Any, publisher: Publisher, stores: Stores) -> None:
        self._app, self._publisher, self._stores = app, publisher, stores

    def work(self, outbox: Outbox, frozen: Callable[[], bool]) -> BrokerUnavailable | Frozen | None:
        """Deal with each firing, and mark them together; what put an early end to it.

        That is for the caller to raise once the marks are committed: what was published before the
        broker broke is published.
        """
        marks: list[Mark] = []
        end: BrokerUnavailable | Frozen | None = None
        for firing in outbox.firings:
            begun = {mark.firing.schedule_id for mark in marks if mark.outcome != "pending"}
            try:
                if frozen():
                    raise Frozen
                marks.append(self._one(outbox, firing, begun))
            except (BrokerUnavailable, Frozen) as error:
                end = error
                break
        if marks:
            _mark(outbox, marks)
        return end

    def _one(self, outbox: Outbox, firing: Firing, begun: set[int]) -> Mark:
        if not firing.active or (firing.until is not None and firing.now > firing.until):
            return Mark(firing, "missed")
        task = self._app.tasks.get(firing.message["task"])
        if firing.overlap is not Overlap.ALLOW and isinstance(task, IdempotentTask):
            if firing.schedule_id in begun:  # the one before has had no time to take its lease
                return Mark(firing, "pending", after_seconds=LATER_SECONDS)
            try:
                if self._runs(outbox, firing, task):
                    return _held_up(firing)
            except IdempotencyError:  # nobody can tell: ask again
                return Mark(firing, "pending", after_seconds=LATER_SECONDS)
        return self._publish(firing, task)

    def _publish(self, firing: Firing, task: Any) -> Mark:
        try:
            self._publisher.publish(firing)
        except BrokerUnavailable:
            raise
        except Exception as error:
            log.error(
                "a message of schedule %s (%s) cannot be published: %s",
                firing.schedule_id,
                firing.identifier,
                type(error).__name__,
            )
            return Mark(firing, "pending", after_seconds=FAULT_SECONDS)
        log.info("sent %s, due %s", firing.identifier, firing.due_at)
        return Mark(firing, "late" if firing.late else "fired", _record_key(firing, task))

    def _runs(self, outbox: Outbox, firing: Firing, task: IdempotentTask) -> bool:
        """Whether a run of this schedule holds a live lease, or waits for its next attempt."""
        store = self._stores.get(task.idempotency_options.authority)
        return any(_is_held(store.find(key)) for key in outbox.runs_before(firing))


def _is_held(found: Found | None) -> bool:
    held = found is not None and found.record.state in (State.RUNNING, State.WAITING)
    return held and found is not None and found.record.due_us > found.now_us


def _held_up(firing: Firing) -> Mark:
    """A run holds it up: dropped, unless it is the one that may wait for the run's end."""
    if firing.overlap is Overlap.SKIP or firing.superseded:
        return Mark(firing, "skipped_overlap")
    return Mark(firing, "pending", after_seconds=LATER_SECONDS, endless=True)


def _record_key(firing: Firing, task: Any) -> str | None:
    """The key that its worker will claim, as far as it can be told here."""
    if not isinstance(task, IdempotentTask):
        return None
    message, headers = firing.message, headers_of(firing.schedule_id, firing.due_at)
    try:
        call = task.idempotency_call_key(
            message["args"], message["kwargs"], task_id=firing.task_id, headers=headers
        )
    except (IdempotencyError, TypeError) as error:
        log.warning("no key for schedule %s: %s", firing.identifier, type(error).__name__)
        return None
    return call.key


def _mark(outbox: Outbox, marks: list[Mark]) -> None:
    done = outbox.mark(marks)
    if done != len(marks):
        raise StoreUnavailable("postgres", f"{len(marks) - done} due times were marked by others")
