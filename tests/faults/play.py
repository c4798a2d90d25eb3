"""Plays one round: workers, traffic, faults; then everything is healed and drained, and read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
import redis
from celery import Celery
from idemwatch.idempotency.wire import decode

from .crew import Crew, alive, open_crew
from .harm import Clock, Harm
from .history import Answered, Counted, History, Left
from .lease_checks import unreleased
from .ledger import Event, Ledger
from .plan import Message, Round
from .servers import Site

DRAIN_SECONDS: Final = 40.0
SETTLE_SECONDS: Final = 8.0
GRACE_SECONDS: Final = 3.0
"""How long an answer may be missing after the broker has nothing left."""
_LOOK_SECONDS: Final = 0.1
_FINAL: Final = ("SUCCESS", "FAILURE", "REVOKED")
_QUEUES: Final = ("celery", *(f"celery\x06\x16{priority}" for priority in (3, 6, 9)))
_RECORDS: Final = """
SELECT key, state, owner, extract(epoch FROM lease_until - clock_timestamp())
  FROM idempotency_record WHERE key LIKE %s
"""


class Stopped(Exception):
    """The run was told to end."""


class HarnessFailed(Exception):
    """A fault could not be done, or not be undone."""


class Player:
    """One round on the servers of a site."""

    def __init__(self, site: Site, plan: Round, rule: str, stop: threading.Event) -> None:
        self._site, self._plan, self._rule, self._stop = site, plan, rule, stop
        self._ledger = Ledger(site.ledger_url, plan.namespace)
        self._broker = site.broker_url(plan.number)
        self._publisher = Celery(
            "faults-publisher", broker=self._broker, backend=self._broker, set_as_current=False
        )

    def play(self) -> History:
        """Play it. Raises Stopped."""
        conf = {
            "ledger": self._site.ledger_url,
            "round": self._plan.namespace,
            "broker": self._broker,
            "wall_minus_mono": time.time() - time.monotonic(),
        }
        try:
            with open_crew(self._site, self._plan, self._rule, conf) as crew:
                return self._played(crew)
        except BaseException:  # also Ctrl-C: faults that go on are to be mended at once
            self._stop.set()
            raise
        finally:
            self._publisher.close()
            self._ledger.close()

    def _played(self, crew: Crew) -> History:
        clock = Clock(self._ledger, self._stop)
        harm = Harm(self._plan, self._site, crew, self._ledger, clock)
        harm.begin()
        publishers = [self._thread(clock, message) for message in self._plan.messages]
        for thread in publishers:
            thread.join()
        harm.wait()
        if self._stop.is_set():
            raise Stopped
        crew.heal()
        answers, left = self._drain(crew)
        lost = self._publish_lost(crew, answers, left)
        if lost:
            answers, left = self._drain(crew)
        self._settle()
        history = self._read(crew, harm, answers, left)
        history.lost = lost
        history.killed = crew.killed()
        harm.close()
        if harm.errors:
            raise HarnessFailed("; ".join(harm.errors))
        return history

    def _thread(self, clock: Clock, message: Message) -> threading.Thread:
        def publish() -> None:
            clock.wait(message.when)
            if not self._stop.is_set():
                self._publish(message)

        thread = threading.Thread(target=publish, name="publisher", daemon=True)
        thread.start()
        return thread

    # -- until nothing is left -----------------------------------------------------------------

    def _drain(self, crew: Crew) -> tuple[dict[str, Answered], list[str]]:
        deadline = time.monotonic() + DRAIN_SECONDS
        ids = sorted({message.task_id for message in self._plan.messages})
        with redis.Redis.from_url(self._broker) as broker:
            empty_since: float | None = None
            while time.monotonic() < deadline:
                for post in crew.ended():
                    crew.begin(post)
                answers, left = self._answers(broker, ids), _left(broker)
                if not left and len(answers) == len(ids):
                    break
                empty_since = None if left else empty_since or time.monotonic()
                if empty_since and time.monotonic() > empty_since + GRACE_SECONDS:
                    break
                if self._stop.wait(_LOOK_SECONDS):
                    raise Stopped
            return self._answers(broker, ids), _left(broker)

    def _publish_lost(self, crew: Crew, answers: dict[str, Answered], left: list[str]) -> list[str]:
        """Publish again what the broker's client has lost; the ids.

        kombu takes a message from its Redis list and notes that it is not acknowledged in two
        steps: a worker that is killed in between takes the message with it.
        """
        missing = {one.task_id: one for one in self._plan.messages if one.task_id not in answers}
        if left or not crew.killed():
            return []
        for message in missing.values():
            self._publish(message)
        return sorted(missing)

    def _publish(self, message: Message) -> None:
        self._publisher.send_task(
            message.task, args=(message.key, message.spec), task_id=message.task_id
        )

    def _answers(self, broker: redis.Redis, ids: list[str]) -> dict[str, Answered]:
        raw = broker.mget([f"celery-task-meta-{one}" for one in ids])
        found = {one: json.loads(text) for one, text in zip(ids, raw, strict=True) if text}
        return {
            one: Answered(meta["status"], meta["result"])
            for one, meta in found.items()
            if meta["status"] in _FINAL
        }

    def _settle(self) -> None:
        """Give the workers' background time to do what a store did not take."""
        self._until(lambda: not self._overdue(), SETTLE_SECONDS)

    def _overdue(self) -> list[Left]:
        return [
            one
            for one in (*self._records(), *self._redis_records()[0])
            if one.state == "running" and one.due_in < 2.0
        ]

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            if self._stop.wait(_LOOK_SECONDS):
                raise Stopped

    # -- what came of it -------------------------------------------------------------------------

    def _read(
        self, crew: Crew, harm: Harm, answers: dict[str, Answered], left: list[str]
    ) -> History:
        decided, cached = self._redis_records()
        counted, events = self._counted(crew)
        key = f"{self._plan.seed}.{self._plan.number}:%"
        written = "SELECT key, owner, fence FROM target_write WHERE round = %s ORDER BY serial"
        once = "SELECT key, owner FROM target_once WHERE key LIKE %s"
        return History(
            plan=self._plan,
            events=events,
            faults=harm.faults,
            forgets=harm.forgets,
            losses=harm.losses,
            answers=answers,
            broker_left=left,
            records=[*self._records(), *decided],
            cached=cached,
            effects=self._rows("SELECT key, token FROM faults_effect WHERE key LIKE %s", key),
            target=self._ledger.query(written, self._plan.namespace),
            once=self._ledger.query(once, key),
            dead={pid for pid in {event.pid for event in events} if not alive(pid)},
            counted=counted,
        )

    def _counted(self, crew: Crew) -> tuple[dict[str, dict[Counted, float]], list[Event]]:
        """Counters and events of one moment: a message may have come late all the same.

        kombu shows a message nowhere while it moves it from the queue to the unacknowledged, nor
        one that is with two workers after the first has acknowledged it. A claim that such a one
        has lost is released in the background.
        """
        give_up = time.monotonic() + SETTLE_SECONDS
        while True:
            before = self._ledger.events()
            counted = crew.counted()
            self._stop.wait(_LOOK_SECONDS)
            events = self._ledger.events()
            quiet = len(events) == len(before) and not any(
                alive(event.pid) for event in unreleased(events)
            )
            if quiet or time.monotonic() > give_up:
                return counted, events

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with psycopg.connect(self._site.postgres.url, autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def _records(self) -> list[Left]:
        head = f"{self._plan.namespace}:"
        rows = self._rows(_RECORDS, f"{head}%")
        return [
            Left(key.removeprefix(head), state, owner, float(due_in))
            for key, state, owner, due_in in rows
        ]

    def _redis_records(self) -> tuple[list[Left], list[Left]]:
        """Those that Redis decides by, and those that it keeps for PostgreSQL."""
        decided: list[Left] = []
        cached: list[Left] = []
        for url in self._site.redis(self._plan.topology).data_urls():
            with redis.Redis.from_url(url, socket_timeout=10) as client:
                now = time.time()
                for name in client.scan_iter(match=f"{self._plan.namespace}:{{*}}", count=1000):
                    raw = client.get(name)
                    if raw is None:
                        continue
                    key = name.decode().partition("{")[2].rstrip("}")
                    record = decode(raw, "redis", key)
                    due_in = record.due_us / 1e6 - now
                    one = Left(key, str(record.state), record.owner, due_in)
                    (decided if record.authority == "redis" else cached).append(one)
        return decided, cached


def _left(broker: redis.Redis) -> list[str]:
    """The task ids of all messages, waiting or with a worker."""
    with broker.pipeline(transaction=True) as pipe:
        for queue in _QUEUES:
            pipe.lrange(queue, 0, -1)
        pipe.hvals("unacked")
        *queued, unacked = pipe.execute()
    held = [json.loads(raw) for raws in queued for raw in raws]
    held += [json.loads(raw)[0] for raw in unacked]
    return [str(message["headers"]["id"]) for message in held]
