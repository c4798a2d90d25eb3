"""idempotency_at_publish: a second `apply_async` of a call gets the first one's AsyncResult.

Advisory: the worker decides as always. A publisher answers with another's message only when it
knows that this was published, or that its work is done; so it first notes that it publishes, and
confirms the note when the broker has the message. One that dies in between leaves a note that
nobody trusts, and that is gone after `UNCONFIRMED`. A note is a record of its own, under a key of
its own: noting is a claim, whose owner is the id of the message; confirming completes it, and
publishing that fails releases it. A worker whose message ends without a result forgets its note.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery.backends.base import DisabledBackend
from celery.states import READY_STATES, SUCCESS
from celery.utils import uuid

from . import metrics
from .app_settings import settings_of
from .engine import Engine, engine_for, microseconds
from .errors import IdempotencyError, StoreLeftOut, StoreUnavailable, UnreadableRecord
from .keys import CallKey
from .record import Answer, Claim, Outcome, State
from .store import Held, Result, Store

if TYPE_CHECKING:
    from .task import IdempotentTask

log = logging.getLogger(__name__)

UNCONFIRMED: Final = timedelta(seconds=10)
"""How long a note without a message keeps others from noting theirs."""
CONFIRMED: Final = timedelta(minutes=10)
"""How long a published message is trusted to be on its way: a queue may lose it."""
PATIENCE_SECONDS: Final = 0.5
"""How long a publisher waits for another that is just publishing the same call."""
QUIET_SECONDS: Final = 5.0
"""How long publishers ask nothing after a store did not answer: each question may take seconds."""
_NOTE: Final = "publish:"
_ALWAYS: Final = (
    *("task_id", "link", "link_error", "chain", "chord", "group_id", "replaced_task_nesting"),
    *("countdown", "eta", "retries", "ignore_result", "serializer"),
)
"""What makes a message one of its own: others wait for this very one, or it comes at its time."""


def publish_once(
    task: IdempotentTask,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    send: Callable[[str | None], Any],
) -> Any:
    """The AsyncResult of a call; `send(task_id)` publishes it, None: with an id of its own."""
    if options.get("expires") is not None or any(options.get(name) for name in _ALWAYS):
        return send(options.get("task_id"))
    call = _call_key(task, args, kwargs, options.get("headers"))
    return send(None) if call is None else Publication(task, call).publish(send)


def _call_key(
    task: IdempotentTask, args: Any, kwargs: Any, headers: Mapping[str, Any] | None
) -> CallKey | None:
    """The call's key; None where no message is to be spared, or the worker is to refuse it."""
    options = task.idempotency_options
    own = task.expires is not None or task.app.conf.task_always_eager or not _others_may_read(task)
    if own or not (options.at_publish and options.enabled):
        return None
    try:
        return task.idempotency_call_key(args or (), kwargs, headers=headers)
    except Exception as error:  # a key function may raise anything; so it will in the worker
        log.info("%s is published unseen, it has no key: %s", task.name, type(error).__name__)
        return None


def _others_may_read(task: IdempotentTask) -> bool:
    """Whether a result can be had by others than its publisher: `rpc://` sends it to him alone."""
    return task.ignore_result or not type(task.backend).__module__.endswith(".rpc")


class Publication:
    """One call that is about to be published."""

    def __init__(self, task: IdempotentTask, call: CallKey) -> None:
        self._task = task
        self._call = call
        self._options = task.idempotency_options
        self._engine = engine_for(settings_of(task.app))
        self._id = uuid()
        self._store: Store
        self._notes: Store

    def publish(self, send: Callable[[str | None], Any]) -> Any:
        """The AsyncResult of the message that does the work: another's, or that of `send`."""
        name = self._task.name
        try:
            first, note = self._look()
        except IdempotencyError as error:  # it may have no address here
            self._told(error)
            metrics.publishes(name, "unavailable").inc()
            return send(None)
        if first is not None:
            metrics.publishes(name, "answered").inc()
            return self._task.AsyncResult(first)
        sent = send(None) if note is None else self._send_noted(note, send)
        metrics.publishes(name, "published").inc()
        return sent

    def _look(self) -> tuple[str | None, Held | None]:
        """The id of a message to answer with, or a note of our own; neither: publish as always."""
        if time.monotonic() < self._engine.publish_quiet_until:
            raise StoreLeftOut("publish")
        stores = self._engine.publishing
        self._store, self._notes = stores.get(self._options.authority), stores.notes()
        key = self._call.key
        record = self._engine.timed(self._store, "check", lambda: self._store.finished(key))
        if record is None:
            return self._take_note()
        # A message that only fetches a result gets no note, which might outlive the record.
        same = record.fingerprint == self._call.fingerprint
        found = same and record.task_id and self._has_result(record.task_id)
        return (record.task_id if found else None), None

    def _told(self, error: IdempotencyError) -> None:
        if isinstance(error, StoreLeftOut):
            return
        log.warning("%s is published unseen: %s", self._task.name, error)
        if isinstance(error, StoreUnavailable) and not isinstance(error, UnreadableRecord):
            self._engine.publish_quiet_until = time.monotonic() + QUIET_SECONDS

    def _has_result(self, task_id: str) -> bool:
        return not self._has_readers() or self._state_of(task_id) == SUCCESS

    def _has_readers(self) -> bool:
        """Whether anybody could wait for a result."""
        return not (self._task.ignore_result or isinstance(self._task.backend, DisabledBackend))

    def _state_of(self, task_id: str) -> str:
        """What the result backend knows of a message; "" if it does not answer."""
        try:
            return str(self._task.backend.get_task_meta(task_id)["status"])
        except Exception as error:  # of whatever backend: the worker will answer instead
            log.info("the result of %s cannot be looked for: %s", task_id, type(error).__name__)
            return ""

    def _take_note(self) -> tuple[str | None, Held | None]:
        """The id of a message on its way, or a note of our own; neither: publish as always."""
        claim = Claim(
            key=_NOTE + self._call.key,
            owner=self._id,  # told before it is sent: its worker may fail before we confirm
            authority=self._notes.name,
            fingerprint=self._call.fingerprint,
            endpoint=self._task.name,
            scope=self._options.rule.scope,
            lease_us=microseconds(UNCONFIRMED),
            max_crashes=1_000_000,
        )
        answer = self._ask(claim)
        if answer.granted:
            return None, Held(claim=claim, fence=answer.fence, created_us=answer.fence)
        record = answer.record
        if answer.outcome is not Outcome.DUPLICATE or record is None:
            return None, None
        return (record.owner if self._on_its_way(record.owner) else None), None

    def _ask(self, claim: Claim) -> Answer:
        """As a claim; another that is just publishing is waited for, a little."""
        notes, deadline = self._notes, time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._engine.timed(notes, "check", lambda: notes.claim(claim))
            if answer.outcome is not Outcome.RUNNING or time.monotonic() > deadline:
                return answer
            threading.Event().wait(0.01)

    def _on_its_way(self, task_id: str) -> bool:
        """Whether nothing contradicts the note: not forgotten, poisoned, dead, of others, ended."""
        key = self._call.key
        found = self._engine.timed(self._store, "check", lambda: self._store.find(key))
        if found is not None:
            record = found.record
            live = record.state in (State.RUNNING, State.WAITING) and record.due_us > found.now_us
            if not live or record.fingerprint != self._call.fingerprint:
                return False
        # As one that was revoked, whose worker could not tell, or whose record is lost.
        return not self._has_readers() or self._state_of(task_id) not in {"", *READY_STATES}

    def _send_noted(self, note: Held, send: Callable[[str | None], Any]) -> Any:
        notes = self._notes
        try:
            sent = send(self._id)
        except BaseException:
            self._tell("release", lambda: notes.release(note))
            raise
        life = microseconds(min(CONFIRMED, self._options.ttl))  # never longer than the result's
        told = Result(ttl_us=life, data=self._id.encode(), content_type="text/plain")
        self._tell("complete", lambda: notes.complete(note, told))
        return sent

    def _tell(self, operation: str, work: Callable[[], object]) -> None:
        """What is not told ends by itself, and until then others publish too."""
        try:
            self._engine.timed(self._notes, operation, work)
        except IdempotencyError as error:
            log.info("a note of %s stays as it is: %s", self._task.name, error)


def forget_publication(engine: Engine, key: str, task_id: str) -> None:
    """The message does not do the work: the next call is published again."""
    notes = engine.stores.notes()

    def forget() -> None:
        found = notes.find(_NOTE + key)
        if found is not None and found.record.owner == task_id:
            notes.forget(_NOTE + key)

    try:
        forget()
    except StoreUnavailable:
        engine.later(notes, forget)
