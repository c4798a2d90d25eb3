"""A site: one system with its workers, its own Redis and PostgreSQL databases, and its callers.

All sites share two Redis servers, one that is never harmed (broker, results, book) and one for what
the systems store, and one PostgreSQL; what is harmed is a site's own: its databases, its workers,
and the proxies through which it reaches its store.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
import redis
from idemwatch.idempotency.migrate import upgrade
from support.proxy import TcpProxy
from support.worker import FAST_REDELIVERY, Worker, start_worker

from .ground import Servers, Stopped
from .protection import Kind
from .seen import Seen, most_at_once
from .systems import POSTGRES, System
from .tasks import EFFECTS_TABLE, WORK, Place, Sheet, build

NO_REDELIVERY: Final = {"visibility_timeout": 3600}
QUEUE: Final = "celery"
POLL_SECONDS: Final = 0.05
CLEAN_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 1.0
"""For so long the broker must keep nothing before we believe that nothing more comes."""


@dataclass
class Call:
    """What a caller did: `task_id` of what was published, or `refused`, the error's name."""

    task_id: str = ""
    refused: str = ""


class Site:
    """One system, ready for a case once `start` was called. Close it."""

    def __init__(self, system: System, servers: Servers, number: int) -> None:
        self.system = system
        self._servers, self._stop = servers, servers.stop
        self._stack = ExitStack()
        self._workers: list[Worker] = []
        self._folders = 0
        self._folder = servers.folder / str(number)
        self._wanted = (0, 0)
        self._store_url = servers.stores.database(number)
        self.redis_proxy = self._proxy(self._store_url)
        effects = servers.postgres.create_database(f"site{number}")
        self._stack.callback(servers.postgres.drop_database, f"site{number}")
        self.postgres_proxy = self._proxy(effects)
        if system.ours:
            upgrade(effects)
        self._effects = psycopg.connect(effects, autocommit=True)
        self._stack.callback(self._effects.close)
        self._effects.execute(EFFECTS_TABLE)
        self._place = Place(
            system=system.name,
            broker=servers.calm.database(2 * number),
            book=servers.calm.database(2 * number + 1),
            store=self.redis_proxy.url(self._store_url),
            database=self.postgres_proxy.url(effects),
            effects=effects,
            redelivery=NO_REDELIVERY,
        )
        self._sheet: Sheet = build(self._place)
        self._stack.callback(self._sheet.app.close)
        # No result subscribes to its end: it would unsubscribe when the servers have gone.
        self._sheet.app.conf.result_backend_thread_safe = True
        self._sheet.app.backend.result_consumer.consume_from = lambda _: None
        self._broker = redis.Redis.from_url(self._place.broker)
        self._book = redis.Redis.from_url(self._place.book)
        self._stack.callback(self._broker.close)
        self._stack.callback(self._book.close)

    def _proxy(self, url: str) -> TcpProxy:
        proxy = TcpProxy(url)
        self._stack.callback(proxy.close)
        return proxy

    @property
    def deciding_proxy(self) -> TcpProxy:
        """The proxy before the store that decides for this system."""
        return self.postgres_proxy if self.system == POSTGRES else self.redis_proxy

    # -- workers -----------------------------------------------------------------------------

    def start(self, *, fast: bool) -> None:
        """One worker with three children; `fast`: two with two, and unacknowledged messages come
        again after two to three seconds."""
        self._end_workers()
        self._place = Place(
            **{**asdict(self._place), "redelivery": FAST_REDELIVERY if fast else NO_REDELIVERY}
        )
        self._wanted = (2, 2) if fast else (1, 3)
        self.revive()

    def revive(self) -> None:
        """Start workers for those that died."""
        workers, children = self._wanted
        self._workers = [worker for worker in self._workers if worker.running()]
        while len(self._workers) < workers:
            self._folders += 1
            folder = (
                self._servers.folder / f"{self._place.broker.rpartition('/')[2]}-{self._folders}"
            )
            folder.mkdir()
            self._workers.append(
                start_worker(
                    "comparison.worker_app",
                    broker=self._place.broker,
                    backend=self._place.book,
                    folder=folder,
                    concurrency=children,
                    env={"CASE_PLACE": json.dumps(asdict(self._place))},
                )
            )

    def interrupt(self) -> None:
        """End whatever any site waits for: it raises Stopped."""
        self._stop.set()

    def clean(self) -> None:
        """Nothing of the case before is left."""
        if not self.settle(CLEAN_SECONDS):
            self._end_workers()
            self._broker.flushdb()
        self.empty_store()
        self.revive()

    def log(self) -> str:
        """All that the workers wrote."""
        return "\n".join(worker.log for worker in self._workers)

    def close(self) -> None:
        """End everything."""
        self._end_workers()
        self._stack.close()

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    # -- callers -----------------------------------------------------------------------------

    def plan(self, *executions: Sequence[str]) -> str:
        """A new label, whose first execution does the first steps, and so on."""
        label = uuid.uuid4().hex[:12]
        if executions:
            self.plan_for(label, *executions)
        return label

    def plan_for(self, label: str, *executions: Sequence[str]) -> None:
        """The plan of a label that is made of another."""
        self._book.set(f"plan:{label}", json.dumps(executions))

    def call(self, kind: Kind, *args: Any, options: Any = None, **kwargs: Any) -> Call:
        """Publish as a service does that has the task's class."""
        try:
            published = self._sheet.tasks[kind.name].apply_async(args, kwargs, **(options or {}))
        except Exception as error:  # whatever a peer raises: it is what the caller is told
            return Call(refused=type(error).__name__)
        return Call(task_id=str(published.id))

    def call_by_name(self, kind: Kind, *args: Any, **options: Any) -> Call:
        """Publish as a service does that knows only the task's name, or as a broker that delivers
        again (with `task_id`)."""
        return Call(task_id=str(self._sheet.app.send_task(kind.name, args, **options).id))

    def chord(self, parts: Sequence[Any], body: Any) -> Call:
        """Publish a chord."""
        from celery import chord

        return Call(task_id=str(chord(parts)(body).id))

    def signature(self, kind: Kind, *args: Any) -> Any:
        """A signature of a task's class."""
        return self._sheet.tasks[kind.name].s(*args)

    def open(self, label: str, number: int) -> None:
        """Open the gate of an execution."""
        self._book.rpush(f"gate:{label}/{number}", "open")

    def over(self, label: str) -> None:
        """The case is over: nobody works on."""
        self._book.rpush(f"over:{label}", "over")

    def answer(self, call: Call, seconds: float = 20.0) -> str:
        """What a caller gets in so many seconds; `nothing` as soon as nothing can come."""
        if call.refused:
            return f"refused {call.refused}"
        self.wait(lambda: self._ended(call), seconds, or_quiet=True)
        meta = self._sheet.app.backend.get_task_meta(call.task_id)
        if meta["status"] == "SUCCESS":
            return f"result {json.dumps(meta['result'])}"
        if meta["status"] in ("FAILURE", "REVOKED"):
            return f"told {type(meta['result']).__name__}"
        return "nothing"

    def finish(self, call: Call) -> Call:
        """Wait until a call has its answer and its message is acknowledged."""
        self.answer(call)
        self.settle()
        return call

    def _ended(self, call: Call) -> bool:
        meta = self._sheet.app.backend.get_task_meta(call.task_id, cache=False)
        return meta["status"] in ("SUCCESS", "FAILURE", "REVOKED")

    def let_in(self, kind: Kind, label: str, seconds: float, *, more: Callable[[], bool]) -> float:
        """Call until `more` says that it had an effect; how many seconds that took.

        Who is refused at publishing calls again; what was published is waited for.
        """
        began = time.monotonic()
        self.call(kind, label)
        while not self.wait(more, 0.5) and time.monotonic() - began < seconds:
            if self.system.at_publish:
                self.call(kind, label)
        return time.monotonic() - began

    # -- what happens ------------------------------------------------------------------------

    def wait(
        self, condition: Callable[[], bool], seconds: float, *, or_quiet: bool = False
    ) -> bool:
        """Whether a condition came to hold in time; `or_quiet`: until the broker is empty."""
        deadline = time.monotonic() + seconds
        quiet_since = time.monotonic()
        while not condition():
            now = time.monotonic()
            if now > deadline:
                return False
            if not self.quiet():
                quiet_since = now
            elif or_quiet and now - quiet_since > QUIET_SECONDS:
                return condition()
            if self._stop.wait(POLL_SECONDS):
                raise Stopped
        return True

    def watch(self, seconds: float) -> None:
        """Let time pass."""
        self.wait(lambda: False, seconds)

    def settle(self, seconds: float = 20.0) -> bool:
        """Wait until the broker keeps nothing; whether that came."""
        return self.wait(self.quiet, seconds)

    def quiet(self) -> bool:
        """Whether no message waits or is with a worker."""
        return not self._broker.exists(QUEUE, "unacked")

    def events(self, label: str) -> list[dict[str, Any]]:
        """What executions wrote down."""
        return [json.loads(raw) for raw in self._book.lrange(f"events:{label}", 0, -1)]

    def count(self, label: str, event: str = "start", task_id: str = "") -> int:
        """How often something happened, in executions of one message or of all."""
        return sum(
            one["event"] == event and task_id in ("", one["task_id"]) for one in self.events(label)
        )

    def started(self, label: str, number: int, seconds: float = 20.0) -> bool:
        """Whether an execution of that number began in time."""
        return self.wait(lambda: self.count(label) >= number, seconds, or_quiet=False)

    def ended(self, label: str, number: int, seconds: float = 20.0) -> bool:
        """Whether the execution of that number ended in time."""
        return self.wait(
            lambda: any(
                one["event"] == "end" and one["number"] == number for one in self.events(label)
            ),
            seconds,
        )

    @contextmanager
    def frozen(self, label: str, number: int) -> Iterator[None]:
        """The process of an execution stands still."""
        (pid,) = {one["pid"] for one in self.events(label) if one["number"] == number}
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def duplicate_message(self, task: str, first_argument: str) -> None:
        """Put a copy of a waiting message beside it, as a broker does that delivers twice."""
        for raw in self._broker.lrange(QUEUE, 0, -1):
            headers = json.loads(raw)["headers"]
            if headers["task"] == task and first_argument in headers["argsrepr"]:
                self._broker.linsert(QUEUE, "BEFORE", raw, raw)  # type: ignore[arg-type]
                return
        raise LookupError(f"no message of {task} with {first_argument} waits")

    @contextmanager
    def workers_frozen(self) -> Iterator[None]:
        """No worker takes a message."""
        for worker in self._workers:
            worker.freeze()
        try:
            yield
        finally:
            for worker in self._workers:
                worker.thaw()

    def committed(self, label: str) -> int:
        """How often an effect was committed in PostgreSQL."""
        row = self._effects.execute(
            "SELECT count(*) FROM effects WHERE label = %s", (label,)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def empty_store(self) -> None:
        """The Redis that the system stores in loses all it has of this site."""
        with redis.Redis.from_url(self._store_url) as client:
            client.flushdb()

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """The Redis that the system stores in refuses its connections."""
        self.redis_proxy.refuse()
        try:
            yield
        finally:
            self.redis_proxy.heal()

    def cut_reply(self, call: Callable[[], Call]) -> Call:
        """Make a call whose first step in the store that decides is done, its reply lost."""
        self.deciding_proxy.drop_replies()
        made: list[Call] = []
        caller = threading.Thread(target=lambda: made.append(call()))
        caller.start()
        try:
            self.wait(self.deciding_proxy.caught.is_set, 5.0)
            self.watch(0.3)
        finally:
            self.deciding_proxy.heal()
            self.deciding_proxy.reset()
            caller.join()
        return made[0]

    def warm(self) -> None:
        """Each child has its connections."""
        children = self._wanted[0] * self._wanted[1]
        label = self.plan(["gate"])
        calls = [self.call(WORK, label, number) for number in range(children)]
        self.started(label, children)
        for number in range(1, children + 1):
            self.open(label, number)
        for call in calls:
            self.answer(call)

    def seen(self, label: str, calls: Sequence[Call] = (), **known: Any) -> Seen:
        """What is to be said of a label, with the answers to calls."""
        callers = tuple(self.answer(call) for call in calls)
        found: dict[str, Any] = {
            "executions": self.count(label),
            "effects": self.count(label, "effect"),
            "at_once": most_at_once(self.events(label)),
            "callers": callers,
        }
        return Seen(**{**found, **known})
