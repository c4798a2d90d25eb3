"""What a call costs its publisher, and what a key costs: in CPU time, so that waiting is free."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Final

from celery import Celery
from idemwatch.idempotency import IdempotentTask

from .lab import Lab
from .measure import MICROSECONDS, OURS, Measured, Operation, against, block
from .peers import (
    ONCE,
    POWERTOOLS,
    SINGLETON,
    celery_conf,
    celery_tasks,
    powertools_config,
    powertools_layer,
)

KEYS: Final = 500
MESSAGES: Final = 100
TURNS: Final = 100


def key(lab: Lab) -> Measured:
    """The key and the fingerprint of a call with five arguments, in µs."""
    operations = _keys(lab)
    spent: dict[str, list[float]] = {name: [] for name in operations}
    for operation in operations.values():
        block(operation, KEYS, time.process_time)
    for _ in lab.turns(TURNS):
        for name, operation in operations.items():
            spent[name].append(block(operation, KEYS, time.process_time) / KEYS)
    found = {name: median(values) * MICROSECONDS for name, values in spent.items()}
    return Measured(found.pop(OURS), found)


def _keys(lab: Lab) -> dict[str, Operation]:
    app = _app(lab)
    ours: Any = app.task(name="bench.key", base=IdempotentTask)(_work)
    peers = celery_tasks(app, work=_work)
    layer = powertools_layer(lab.client)
    layer.configure(powertools_config(), function_name="bench")
    rule = ours.idempotency_options.rule
    args, kwargs = [4211, "pump-7", "2026-01-31"], {"urgent": True, "notify": ["a", "b"]}
    data = {"args": args, **kwargs}
    return {
        OURS: lambda: rule.call_key(ours, args, kwargs, task_id="", ids={}),
        ONCE: lambda: peers[ONCE].get_key(args, kwargs),
        SINGLETON: lambda: peers[SINGLETON].generate_lock("bench.key", args, kwargs),
        POWERTOOLS: lambda: layer._get_hashed_idempotency_key(data),
    }


def publish(lab: Lab) -> Measured:
    """apply_async, each message with arguments of its own."""
    app = _app(lab)
    ours = app.task(name="bench.ours", base=IdempotentTask, acks_late=True)(_number)
    plain = app.task(name="bench.plain", acks_late=True)(_number)
    peers = {name: _publisher(task) for name, task in celery_tasks(app, work=_number).items()}
    return against(
        _publisher(ours),
        _publisher(plain),
        peers,
        calls=MESSAGES,
        turns=lab.turns(TURNS),
        clock=time.process_time,
    )


def _publisher(task: Any) -> Operation:
    number = 0

    def publish_one() -> None:
        nonlocal number
        number += 1
        task.apply_async((number,))

    return publish_one


def _app(lab: Lab) -> Celery:
    app = Celery("bench", broker=lab.redis_url, set_as_current=False)
    app.conf.update(
        idempotency_redis_url=lab.redis_url,
        idempotency_authority="redis",
        **celery_conf(lab.redis_url),
    )
    lab.stack.callback(app.close)
    return app


def _work(job_id: int, asset: str, day: str, urgent: bool, notify: list[str]) -> None:
    """A task of five arguments that does nothing."""


def _number(number: int) -> None:
    """A task that does nothing."""
