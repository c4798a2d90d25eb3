"""A beat that turns when the test says so, and what stands in its table and at its broker."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import redis
from celery import Celery
from idemwatch.idempotency import IdempotentTask
from idemwatch.scheduler.beat import Scheduler
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.schedule_store import ScheduleStore


def job(*_: Any, **__: Any) -> None:
    """No worker runs it here."""


class Desk:
    """A database, a broker, and beats of one app."""

    def __init__(self, broker: str, database_url: str, **conf: Any) -> None:
        self.broker, self.database_url = broker, database_url
        self.app = Celery("desk", broker=broker, set_as_current=False)
        self.app.conf.update(
            idempotency_database_url=database_url,
            idempotency_redis_url=broker,
            idempotency_sync_beat_schedule=False,
            task_ignore_result=True,
            **conf,
        )
        self.task = self.app.task(name="job", base=IdempotentTask, shared=False)(job)
        self.app.task(name="plain", shared=False)(job)
        self.beats = [self.beat()]
        self.store = ScheduleStore(self.beats[0]._link)

    def beat(self) -> Scheduler:
        """One more beat, for the test to keep in `beats`."""
        return Scheduler(app=self.app)

    def close(self) -> None:
        """End all."""
        for beat in self.beats:
            beat.close()
        self.app.close()

    def add(self, text: str = "every 60s", **changed: Any) -> int:
        """A schedule; its id."""
        timing = changed.pop("timing", None) or timing_of(text)
        one = Schedule(id="", name=f"n{text}", task=changed.pop("task", "job"), timing=timing)
        self.store.insert([replace(one, **changed)])
        return int(self.store.schedules().schedules[-1].id)

    def due(self, schedule_id: int, ago: timedelta = timedelta(0)) -> datetime:
        """Make the last whole minute, or one so long before, the next that is due."""
        now = self.one("SELECT date_trunc('minute', clock_timestamp())")
        moment: datetime = (now - ago).astimezone(UTC)
        self.rows("UPDATE schedule SET next_due_at = %s WHERE id = %s", moment, schedule_id)
        return moment

    def tick(self) -> float:
        """A turn of the first beat."""
        return self.beats[0].tick()

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a statement answers."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of its first row."""
        return self.rows(statement, *values)[0][0]

    def outcomes(self, schedule_id: int) -> list[str]:
        """What became of each due time of a schedule, in order."""
        found = self.rows(
            "SELECT outcome FROM schedule_firing WHERE schedule_id = %s ORDER BY due_at",
            schedule_id,
        )
        return [outcome for (outcome,) in found]

    def messages(self) -> list[dict[str, Any]]:
        """What the broker holds, the oldest first."""
        with redis.Redis.from_url(self.broker) as client:
            queues = [name for name in client.keys("*") if client.type(name) == b"list"]
            return [json.loads(raw) for queue in queues for raw in client.lrange(queue, 0, -1)][
                ::-1
            ]


def in_an_hour(desk: Desk) -> None:
    """So that a grace of a minute does not end while a slow test looks."""
    desk.rows("UPDATE schedule SET misfire_grace_seconds = 3600")
