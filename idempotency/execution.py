"""One execution of an IdempotentTask: claim, run, complete, or what else the claim's answer asks.

Everything happens here, around `run`, since Celery calls no hook on Ignore, Reject or SystemExit.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore, Reject, Retry

from . import metrics
from .engine import TASK, Engine, microseconds, new_owner
from .errors import (
    AlreadyRunning,
    ArgumentMismatch,
    AuthorityMismatch,
    DuplicateTask,
    LeaseLost,
    PoisonedKey,
    StoreUnavailable,
    UnreadableRecord,
)
from .heartbeat import Lease
from .keys import FIRING_HEADERS, CallKey, digest, firing_of
from .options import KEEP_LAST, TaskOptions
from .policies import LATER
from .publishing import forget_publication
from .record import RETRY_GRACE_US, SECOND, Answer, Claim, Completion, Outcome, Record, Wait
from .redelivery import (
    UNAVAILABLE_HEADER,
    WAIT_HEADER,
    backoff_seconds,
    check_message,
    header,
    publish_again,
)
from .results import decode_result
from .store import Result

if TYPE_CHECKING:
    from .task import IdempotentTask

log = logging.getLogger(__name__)

RETRY_GRACE: Final = timedelta(microseconds=RETRY_GRACE_US)


class Execution:
    """The course of one delivery through its claim."""

    def __init__(
        self,
        task: IdempotentTask,
        engine: Engine,
        options: TaskOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.task = task
        self.engine = engine
        self.options = options
        self.args = args
        self.kwargs = kwargs
        self.request = task.request
        check_message(self.request)
        self.store = engine.stores.get(options.store)
        self.call = self._call_key(args, kwargs)
        self.lease: Lease | None = None
        self.retry_delay: timedelta | None = None
        """Set while Celery makes the message of a retry."""
        self._parked: Lease | None = None
        self._claimed_at = 0.0
        self._waited = header(self.request, WAIT_HEADER)
        self._token = digest(
            str(self.request.id).encode(), self._waited.encode("utf-8", "replace")
        )[:12]

    def run(self) -> Any:
        """The task's result, or the finished one's. Raises as `on_duplicate` and others say."""
        claim = self._new_claim()
        self._claimed_at = time.monotonic()
        try:
            answer = self.engine.claim(self.store, claim)
        except StoreUnavailable as error:
            return self._unavailable(claim, error)
        except AuthorityMismatch:
            self._count(claim, Outcome.MISMATCH)
            self._not_awaited()
            raise
        self._count(claim, answer.outcome)
        if answer.granted:
            return self._perform(claim, answer)
        return self._turned_away(answer)

    # -- the claim ---------------------------------------------------------------------------

    def _call_key(self, args: Any, kwargs: Any) -> CallKey:
        ids = {
            name: header(self.request, f"idempotency_{name}") for name in ("user_id", "device_id")
        }
        rule = self.options.rule
        if rule.scope not in ("user", "device"):
            ids = {}
        firing = firing_of(*(header(self.request, name) for name in FIRING_HEADERS))
        return rule.call_key(
            self.task, args, kwargs, task_id=self.request.id or "", ids=ids, firing=firing
        )

    def _new_claim(self) -> Claim:
        call, options = self.call, self.options
        waits = options.on_running != "raise" and not self.request.is_eager
        return Claim(
            key=call.key,
            owner=new_owner(),
            authority=options.authority,
            fingerprint=call.fingerprint,
            task_id=self.request.id or "",
            attempt=self.request.retries or 0,
            endpoint=self.task.name,
            scope=options.rule.scope,
            user_id=call.user_id,
            device_id=call.device_id,
            lease_us=microseconds(options.lease),
            max_crashes=options.max_crashes,
            wait=self._wait() if waits else None,
        )

    def _wait(self) -> Wait:
        longest = int(self.options.longest_delay_seconds * SECOND)
        request = self.request
        again = bool((request.delivery_info or {}).get("redelivered"))
        if request.headers and header(request, UNAVAILABLE_HEADER):  # its note may have arrived
            again = True
        return Wait(self._token, self._waited, redelivered=again, max_delay_us=longest)

    def _count(self, claim: Claim, outcome: Outcome) -> None:
        """A message that waited was a hit when it was first met, and is none again."""
        if not self._waited or outcome not in (Outcome.DUPLICATE, Outcome.RUNNING):
            self.engine.count(claim, outcome, self.task.name)

    # -- granted -----------------------------------------------------------------------------

    def _perform(self, claim: Claim, answer: Answer) -> Any:
        if answer.outcome is Outcome.TAKEN_OVER:
            log.warning("%s takes over %s: its lease had run out", self.request.id, claim.key)
        self.lease = self.engine.hold(
            self.store,
            claim,
            answer,
            task=self.task.name,
            claimed_at=self._claimed_at,
            max_hold_seconds=self._max_hold_seconds(),
        )
        try:
            result = self._work()
            encoded = self._encoded(result)
        except LATER as error:
            self._give_up(error)
        except BaseException as error:
            self.release(_reason(error))
            raise
        lease, self.lease = self.lease, None
        return result if lease is None else self._complete(lease, result, encoded)

    def _work(self) -> Any:
        name = self.task.name
        began, running = perf_counter(), TASK.set(name)
        try:
            return self.task.run(*self.args, **self.kwargs)
        finally:
            TASK.reset(running)
            metrics.task_seconds(name).observe(perf_counter() - began)

    def _encoded(self, result: Any) -> Result:
        serializer = str(self.task.serializer or "json")
        return self.engine.encode(result, serializer, self.options.ttl, self.task.name)

    def _give_up(self, error: Exception) -> NoReturn:
        """The work met that of another, or no store: its message comes again.

        A key that is lost itself is left to whoever has it, or takes it over, so that the attempt
        counts as lost; any other is given back.
        """
        lease = self.lease
        if isinstance(error, LeaseLost):
            if lease is None:  # it has ended before, as by a retry too many
                raise error
            if error.key == lease.key:
                self.lease = None
                self.engine.give_up(lease)
        self.release("ignored")
        self._again_later(error)

    def _max_hold_seconds(self) -> float:
        if self.options.max_hold is not None:
            return self.options.max_hold.total_seconds()
        hard = (self.request.timelimit or (None,))[0] or self.task.time_limit
        return float(hard) if hard else self.options.hold_seconds

    def _complete(self, lease: Lease, result: Any, encoded: Result) -> Any:
        """Store the result. If a successor has the key, behave as a duplicate that met it."""
        name = self.task.name
        completion = self.engine.complete(lease, encoded)
        if completion is Completion.STORED:
            metrics.completions(name, "stored").inc()
            return result
        if completion is Completion.DEFERRED:
            return result
        metrics.completions(name, "stale").inc()
        lease.lose()
        if completion is Completion.FORGOTTEN:
            return result
        return self._meet_successor(result, encoded)

    def _meet_successor(self, result: Any, encoded: Result) -> Any:
        claim = self._new_claim()
        began = time.monotonic()
        try:
            answer = self.engine.claim(self.store, claim)
        except StoreUnavailable as error:
            self._again_later(error)
        if answer.superseded:
            return result  # the successor is another message, with callbacks of its own
        if not answer.granted:
            return self._turned_away(answer)
        # The successor is gone without a result, and ours is at hand.
        successor = self.engine.hold(
            self.store, claim, answer, task=self.task.name, claimed_at=began
        )
        return self._complete(successor, result, encoded)

    # -- retry, replace, give up -------------------------------------------------------------

    def park(self, args: Any, kwargs: Any, delay: timedelta) -> None:
        """Before a retry is published: keep the key for the next attempt."""
        lease = self.lease
        if lease is None:
            return
        following = self.call
        if args is not None or kwargs is not None:
            following = self._call_key(
                self.args if args is None else args, self.kwargs if kwargs is None else kwargs
            )
        if following.key != self.call.key:  # the next attempt is another piece of work
            self.release("retry")
            return
        self.lease = None
        self._parked = lease
        self.engine.park(lease, fingerprint=following.fingerprint, open_after=delay + RETRY_GRACE)

    def retried(self) -> None:
        """The retry was published."""
        lease, self._parked = self._parked, None
        if lease is not None:
            metrics.releases(self.task.name, "retry").inc()

    def unpark(self, reason: str) -> None:
        """The retry was not published: give the key back."""
        lease, self._parked = self._parked, None
        if lease is not None:
            self._give_back(lease, reason)

    def release(self, reason: str) -> None:
        """Give the key back without a result, if it is still held."""
        lease, self.lease = self.lease, None
        if lease is not None:
            self._give_back(lease, reason)

    def _give_back(self, lease: Lease, reason: str) -> None:
        self._not_awaited()  # first: whoever publishes now finds the key held
        self.engine.release(lease)
        metrics.releases(self.task.name, reason).inc()

    def _not_awaited(self) -> None:
        """This message will have no result, so no publisher shall answer with it."""
        if self.options.at_publish and not self.request.is_eager:
            forget_publication(self.engine, self.call.key, str(self.request.id))

    # -- turned away -------------------------------------------------------------------------

    def _turned_away(self, answer: Answer) -> Any:
        key = self.call.key
        if answer.superseded:
            raise self._superseded(answer)
        if answer.outcome is Outcome.DUPLICATE and answer.record is not None:
            return self._replay(answer.record)
        if answer.outcome is Outcome.MISMATCH:
            self._not_awaited()
            raise ArgumentMismatch(key)
        if answer.outcome is Outcome.POISONED:
            self._not_awaited()
            raise PoisonedKey(key)
        raise self._meet_running(answer)

    def _replay(self, record: Record) -> Any:
        options = self.options
        in_canvas = self._in_canvas()
        if options.on_duplicate == "raise":
            self._not_awaited()
            raise DuplicateTask(self.call.key)
        if options.on_duplicate == "skip" and not in_canvas:
            self._not_awaited()
            raise Ignore(f"{self.call.key} is finished already")
        if record.result is not None:
            try:
                return decode_result(record.result, record.result_type, self.call.key)
            except StoreUnavailable as error:
                self._again_later(error)
        return self._result_of_backend(record, needed=in_canvas)

    def _in_canvas(self) -> bool:
        request = self.request
        return bool(request.chord or request.chain or request.callbacks or request.group)

    def _result_of_backend(self, record: Record, *, needed: bool) -> Any:
        """A result that was too large to keep, from Celery's own backend if it has it."""
        backend = self.task.backend
        kept = record.task_id and not isinstance(backend, DisabledBackend)
        meta = backend.get_task_meta(record.task_id) if kept else {}
        if meta.get("status") == "SUCCESS":
            return meta.get("result")
        if needed:
            raise DuplicateTask(self.call.key)
        return None

    def _meet_running(self, answer: Answer) -> Any:
        key, record = self.call.key, answer.record
        if self.options.on_running == "raise" or self.request.is_eager:
            self._not_awaited()
            return AlreadyRunning(key)
        same_id = record is not None and record.task_id == self.request.id
        if self.options.on_running == "skip" and not same_id:
            self._not_awaited()
            return Ignore(f"{key} is held by another message")
        if answer.delay_us is None:
            return Ignore(f"another copy of {self.request.id} waits already")
        token = self._token
        if self.options.on_running == KEEP_LAST and record is not None:
            token = record.waiters[self.request.id].token  # its place in the row
        return publish_again(self.task, answer.delay_us / SECOND, WAIT_HEADER, token)

    def _superseded(self, answer: Answer) -> Ignore:
        """A newer message has its place: it is revoked, so that nobody waits for its result."""
        task, request = self.task, self.request
        why = f"a newer message of {self.call.key} has its place"
        if answer.outcome is not Outcome.DUPLICATE:  # else it has run, and has told its result
            metrics.superseded(task.name).inc()
            kept = not (task.ignore_result or request.ignore_result)
            task.backend.mark_as_revoked(request.id, why, request=request, store_result=kept)
        return Ignore(why)

    # -- no store answers --------------------------------------------------------------------

    def _unavailable(self, claim: Claim, error: StoreUnavailable) -> Any:
        name = self.task.name
        strange = isinstance(error, UnreadableRecord)  # there is a record: never run blindly
        if self.options.when_unavailable == "run" and not strange:
            log.warning("%s runs without protection: %s", self.request.id, error)
            self._count(claim, Outcome.BYPASSED)
            metrics.unprotected_runs(name).inc()
            return self._run_unprotected()
        self._count(claim, Outcome.UNAVAILABLE)
        return self._again_later(error)

    def _run_unprotected(self) -> Any:
        return self.task.run(*self.args, **self.kwargs)

    def _again_later(self, error: Exception) -> NoReturn:
        """Deliver the message again, later and later. What cannot be delivered again is raised."""
        if self.request.is_eager:
            raise error
        tried = header(self.request, UNAVAILABLE_HEADER)
        attempt = int(tried) if tried.isdecimal() and len(tried) < 10 else 0
        delay = backoff_seconds(attempt, self.options.longest_delay_seconds)
        log.info("%s comes again in %.3g s: %s", self.request.id, delay, error)
        raise publish_again(self.task, delay, UNAVAILABLE_HEADER, str(attempt + 1)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, Retry):
        return "retry"
    if isinstance(error, Ignore | Reject):
        return "ignored"
    return "failure"
