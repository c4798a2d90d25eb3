"""What becomes of a message in the outbox: published, missed, skipped, or kept for later."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final

from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.record import State
from idemwatch.idempotency.store import Found
from idemwatch.idempotency.stores import Stores
from idemwatch.idempotency.task import IdempotentTask

from .errors import BrokerUnavailable
from .firing import Firing, Mark
from .firing_store import Outbox
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

    def work(self, outbox: Outbox, frozen: Callable[[], bool]) -> BaseException | None:
        """Deal with each firing, and mark them together; what put an early end to it.

        That is for the caller to raise once the marks are committed: what was published before the
        broker broke, or before the process was told to end, is published.
        """
        marks: list[Mark] = []
        end: BaseException | None = None
        for firing in outbox.firings:
            begun = {mark.firing.schedule_id for mark in marks if mark.outcome != "pending"}
            try:
                if frozen():
                    raise Frozen
                marks.append(self._one(outbox, firing, begun))
            except BaseException as error:
                end = error
                break
        if marks:
            _mark(outbox, marks)
        return end

    def _one(self, outbox: Outbox, firing: Firing, begun: set[int]) -> Mark:
        if firing.given_up:
            return Mark(firing, "missed")
        try:
            return self._deal(outbox, firing, begun)
        except BrokerUnavailable:
            raise
        except StoreUnavailable:  # nobody can tell what runs: ask again
            return Mark(firing, "pending", after_seconds=LATER_SECONDS)
        except Exception as error:
            name, told = firing.identifier, type(error).__name__
            log.error(
                "a message of schedule %s (%s) cannot be published: %s",
                firing.schedule_id,
                name,
                told,
            )
            if firing.expired:
                return Mark(firing, "missed")
            return Mark(firing, "pending", after_seconds=FAULT_SECONDS)

    def _deal(self, outbox: Outbox, firing: Firing, begun: set[int]) -> Mark:
        message = json.loads(firing.message)
        task = self._app.tasks.get(message["task"])
        if firing.overlap is not Overlap.ALLOW and isinstance(task, IdempotentTask):
            if firing.schedule_id in begun:  # the one before has had no time to take its lease
                return Mark(firing, "pending", after_seconds=LATER_SECONDS)
            if self._runs(outbox, firing, task):
                return _held_up(firing)
        given = message["options"].pop("headers", None) or {}
        headers = {**given, **headers_of(firing.schedule_id, firing.due_at)}
        key = _record_key(firing, task, message, headers)
        self._publisher.publish(firing, message, headers)
        log.info("sent %s, due %s", firing.identifier, firing.due_at)
        return Mark(firing, "late" if firing.late or firing.expired else "fired", key)

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


def _record_key(
    firing: Firing, task: Any, message: dict[str, Any], headers: dict[str, Any]
) -> str | None:
    """The key that its worker will claim, as far as it can be told here."""
    if not isinstance(task, IdempotentTask):
        return None
    args, kwargs, task_id = message["args"], message["kwargs"], firing.task_id
    try:
        return task.idempotency_call_key(args, kwargs, task_id=task_id, headers=headers).key
    except Exception as error:  # a key function is anyone's code, and may need a worker
        log.warning("no key for schedule %s: %s", firing.identifier, type(error).__name__)
        return None


def _mark(outbox: Outbox, marks: list[Mark]) -> None:
    done = outbox.mark(marks)
    if done != len(marks):
        raise StoreUnavailable("postgres", f"{len(marks) - done} due times were marked by others")
