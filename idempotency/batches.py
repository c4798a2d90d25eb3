"""IdempotentBatches: celery-batches whose every message is claimed by a key of its own.

    def visit(page, visitor=None): ...  # the parameters of one message

    @app.task(base=IdempotentBatches, call=visit, flush_every=100, flush_interval=10)
    def count_visits(requests):
        return [add(*request.args, **request.kwargs) for request in requests]

`run` gets the requests whose work is to be done here, and returns a result for each; the others
are answered as those of an IdempotentTask. celery-batches acknowledges a batch as a whole, whatever
became of it; here each message is acknowledged, or put back, by what became of its own work.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn

from celery.app.task import Context
from celery.exceptions import Ignore, Reject

from . import metrics
from .app_settings import settings_of
from .engine import TASK, engine_for
from .errors import ConfigurationError, IdempotencyError
from .execution import Execution
from .heartbeat import Lease
from .options import KEEP_LAST
from .policies import LATER
from .record import Answer, Claim, Outcome
from .task import IdempotentTask

try:
    from celery_batches import Batches, SimpleRequest
    from celery_batches.trace import apply_batches_task
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "idemwatch.idempotency.batches needs celery-batches: pip install celery-batches"
    ) from missing

log = logging.getLogger(__name__)

_OURS: Final = object()
"""What a claim answers whose work is to be done here."""


class Item(Execution):
    """One message of a batch: claimed like any other, but run together with its neighbours."""

    suspect = False
    """Whether who had the key before died: perhaps of this very message."""

    def __init__(self, task: IdempotentBatches, request: SimpleRequest) -> None:
        self.simple, self.context = request, _context(request)
        with self._current(task):
            args, kwargs = tuple(request.args or ()), dict(request.kwargs or {})
            engine = engine_for(settings_of(task.app))
            super().__init__(task, engine, task.idempotency_options, args, kwargs)

    @contextmanager
    def _current(self, task: IdempotentTask) -> Iterator[None]:
        """Within, this message is the task's request."""
        task.request_stack.push(self.context)
        try:
            yield
        finally:
            task.request_stack.pop()

    def claim(self) -> Any:
        """`_OURS`, or the result of finished work. Raises as an execution does."""
        with self._current(self.task):
            return self.run()

    def finish(self, result: Any) -> Any:
        """Store the result; returns it, or that of a successor."""
        with self._current(self.task):
            try:
                encoded = self._encoded(result)
            except BaseException:
                self.release("failure")
                raise
            lease, self.lease = self.lease, None
            return result if lease is None else self._complete(lease, result, encoded)

    def comes_again(self, error: Exception) -> NoReturn:
        """Publish the message again, without its key. Raises Ignore or Reject."""
        with self._current(self.task):
            self._give_up(error)

    def _perform(self, claim: Claim, answer: Answer) -> Any:
        self.suspect = answer.outcome is Outcome.TAKEN_OVER
        self.lease = self.engine.hold(
            self.store,
            claim,
            answer,
            task=self.task.name,
            claimed_at=self._claimed_at,
            max_hold_seconds=self._max_hold_seconds(),
        )
        return _OURS

    def _run_unprotected(self) -> Any:
        return _OURS


class IdempotentBatches(IdempotentTask, Batches):  # type: ignore[misc]  # it has no types
    """Batches of messages, each of which does its work once. Options as of IdempotentTask."""

    abstract = True
    call: Callable[..., Any] | None = None
    """A function with the parameters of one message; None: a key covers them as they were given."""

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """As IdempotentTask's. Raises ConfigurationError for what no batch can do, too."""
        super().on_bound(app)
        if cls._given.get("on_running") == KEEP_LAST:
            raise ConfigurationError(
                "idempotency_on_running",
                f"task {cls.name}: {KEEP_LAST!r} is not for batches, which gather what comes",
            )

    def _called(self) -> Callable[..., Any]:
        described = inspect.getattr_static(type(self), "call")
        described = getattr(described, "__func__", described)  # of a staticmethod
        return described or _as_given

    def claim_of(self, request: SimpleRequest) -> Lease:
        """The lease of a request, within `run`: `key`, `fence`, `check()`."""
        items: dict[int, Item] = getattr(self.request, "idempotency_items", {})
        item = items.get(id(request))
        if item is None or item.lease is None:
            raise IdempotencyError(f"{self.name} holds no claim of {request.id} here")
        return item.lease

    def __call__(self, requests: Sequence[SimpleRequest]) -> Any:
        """Do a batch; returns the places of those messages that are to be delivered again."""
        batch = _Batch(self, requests)
        if not self.request.is_eager:
            return batch.do()
        (result,) = batch.do_here()
        return result

    def flush(self, requests: Collection[Any]) -> Any:
        """As celery-batches', but messages are acknowledged one by one, and put back when lost."""
        batch = [(request, bool(request.task.acks_late)) for request in requests]

        def accepted(_pid: int, _time: float) -> None:
            for request, late in batch:
                if not late:
                    request.acknowledge()

        def ended(again: Any) -> None:
            places = again if isinstance(again, list) else range(len(batch))  # else it was lost
            for place, (request, late) in enumerate(batch):
                if late and place in places:
                    request.reject(requeue=True)
                elif late:
                    request.acknowledge()

        return self._pool.apply_async(
            apply_batches_task,
            (self, ([_simple(request) for request, _ in batch],), 0, None),
            accept_callback=accepted,
            callback=ended,
            error_callback=ended,
        )


def _as_given(*args: Any, **kwargs: Any) -> None:
    """The parameters of a message that nobody described."""


def _simple(request: Any) -> SimpleRequest:
    """A request that can be pickled; unlike celery-batches' it keeps its callbacks and its chord,
    as a message that is published again must."""
    simple = SimpleRequest.from_request(request)
    embedded = request._payload[2] or {}
    simple.request_dict = {**request.request_dict, **embedded}
    return simple


def _context(request: SimpleRequest) -> Context:
    where = request.delivery_info or {}
    return Context(
        {
            **(request.request_dict or {}),
            "id": request.id,
            "args": request.args,
            "kwargs": request.kwargs,
            "delivery_info": where,
            "called_directly": False,
            "is_eager": bool(where.get("is_eager")),
        }
    )


class _Plain:
    """A message of a task whose protection is turned off."""

    def __init__(self, request: SimpleRequest) -> None:
        self.simple, self.context = request, _context(request)

    def claim(self) -> Any:
        return _OURS

    def finish(self, result: Any) -> Any:
        return result

    def release(self, reason: str) -> None:
        """There is no key to give back."""

    def comes_again(self, error: Exception) -> NoReturn:
        raise Reject(type(error).__name__, requeue=True) from error


class _Batch:
    """The course of one batch: rounds in which each key comes once, until nothing is left."""

    def __init__(self, task: IdempotentBatches, requests: Sequence[SimpleRequest]) -> None:
        self._task = task
        self._requests = requests
        self._places = {id(request): place for place, request in enumerate(requests)}
        self._enabled = task.idempotency_options.enabled
        self._again: set[int] = set()

    def do(self) -> list[int]:
        """Do all and tell each caller; returns the places of what is to be delivered again."""
        if not self._enabled:
            self._work([_Plain(request) for request in self._requests])
            return sorted(self._again)
        left = self._items()
        while left:
            turn: dict[str, Item] = {}
            for item in left:
                turn.setdefault(item.call.key, item)
            left = [item for item in left if turn[item.call.key] is not item]
            self._work(self._ours(turn.values()))
        return sorted(self._again)

    def _ours(self, items: Iterable[Item]) -> list[Item]:
        """Those whose work is to be done together. One whose holder died is done alone, before the
        next is claimed: if it kills this process too, that is not counted against neighbours."""
        ours: list[Item] = []
        try:
            for item in items:
                if self._settle(item, item.claim) is not _OURS:
                    continue
                if item.suspect:
                    self._work([item])
                else:
                    ours.append(item)
        except BaseException:
            for one in ours:
                one.release("failure")
            raise
        return ours

    def do_here(self) -> list[Any]:
        """Do all where it was called, one by one, and raise what goes wrong."""
        return [self._do_one(request) for request in self._requests]

    def _do_one(self, request: SimpleRequest) -> Any:
        item = Item(self._task, request) if self._enabled else _Plain(request)
        found = item.claim()
        if found is not _OURS:
            return found
        try:
            (result,) = self._run([item])
        except BaseException:
            item.release("failure")
            raise
        return _finish(item, result)

    def _items(self) -> list[Item]:
        items = []
        for request in self._requests:
            try:
                items.append(Item(self._task, request))
            except Exception as error:  # it has no key: refused, as a task of its own would be
                self._fail(_Plain(request), error)
        return items

    def _work(self, items: Sequence[Item | _Plain]) -> None:
        if not items:
            return
        try:
            results = self._run(items)
        except Exception as error:
            log.warning("a batch of %d of %s: %s", len(items), self._task.name, error)
            for item in items:
                self._settle(item, partial(_give_up, item, error))
        except BaseException:
            for item in items:
                item.release("failure")
            raise
        else:
            for item, result in zip(items, results, strict=True):
                self._settle(item, partial(_finish, item, result))

    def _run(self, items: Sequence[Item | _Plain]) -> Sequence[Any]:
        """The result of each, in their order. Raises what `run` raises."""
        task = self._task
        requests = [item.simple for item in items]
        task.request.idempotency_items = {id(item.simple): item for item in items}
        began, running = perf_counter(), TASK.set(task.name)
        try:
            return _results(task.name, requests, task.run(requests))
        finally:
            TASK.reset(running)
            metrics.task_seconds(task.name).observe(perf_counter() - began)

    def _settle(self, item: Item | _Plain, step: Callable[[], Any]) -> Any:
        """Take a step of an item, and tell its caller what came of it, unless its work begins."""
        try:
            found = step()
        except Ignore:
            return None
        except Reject as rejected:
            if rejected.requeue:
                self._comes_again(item)
            return None
        except Exception as error:
            self._fail(item, error)
            return None
        if found is not _OURS:
            backend = self._task.backend
            self._tell(item, partial(backend.mark_as_done, item.simple.id, found))
        return found

    def _fail(self, item: Item | _Plain, error: Exception) -> None:
        backend = self._task.backend
        self._tell(item, partial(backend.mark_as_failure, item.simple.id, error))

    def _tell(self, item: Item | _Plain, mark: Callable[..., object]) -> None:
        """Store a result for the caller; if that fails, the message comes again to be answered."""
        kept = not (self._task.ignore_result or item.context.ignore_result)
        try:
            mark(request=item.context, store_result=kept)
        except Exception as error:
            log.warning("the result of %s is not told yet: %s", item.simple.id, error)
            self._comes_again(item)

    def _comes_again(self, item: Item | _Plain) -> None:
        self._again.add(self._places[id(item.simple)])


def _finish(item: Item | _Plain, result: Any) -> Any:
    if isinstance(result, Exception):  # this one alone failed
        _give_up(item, result)
    return item.finish(result)


def _give_up(item: Item | _Plain, error: Exception) -> NoReturn:
    if isinstance(error, LATER):
        item.comes_again(error)
    item.release("ignored" if isinstance(error, Ignore | Reject) else "failure")
    raise error


def _results(name: str, requests: Sequence[SimpleRequest], returned: Any) -> Sequence[Any]:
    """What `run` returned, as one result for each request."""
    if returned is None:
        return [None] * len(requests)
    if isinstance(returned, Mapping) and {*returned} == {request.id for request in requests}:
        return [returned[request.id] for request in requests]
    if isinstance(returned, list | tuple) and len(returned) == len(requests):
        return returned
    raise IdempotencyError(
        f"{name} returned {type(returned).__name__}, not a result for each of its "
        f"{len(requests)} requests: return a list in their order, a dict by their ids, or None"
    )
