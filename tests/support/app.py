"""A Celery app whose idempotent tasks write down what they do, for tests on real workers.

Its conf comes from APP_CONF (JSON). Each execution appends to a list in the Redis of `book_url`, so
that a test can count starts, ends and effects; a task waits at a gate, never for a fixed time.
"""

from __future__ import annotations

import decimal
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import redis
from celery import Celery, chord
from celery.exceptions import Ignore, Reject
from celery.signals import worker_init
from celery.worker.control import control_command
from idemwatch.exporter.worker import install_signals
from idemwatch.idempotency import IdempotentTask

GATE_SECONDS = 60

app = Celery("sheet", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_default_retry_delay=0,
    **json.loads(os.environ.get("APP_CONF", "{}")),
)
install_signals()


@cache
def _book(_pid: int) -> redis.Redis:
    return redis.Redis.from_url(app.conf.book_url, socket_timeout=GATE_SECONDS + 10)


def write(label: str, event: str) -> int:
    """Write `event` down for `label`; returns how many stand there now."""
    return int(_book(os.getpid()).rpush(f"book:{label}", event))


def times(label: str, event: str) -> int:
    """How often `event` was written down for `label`."""
    return list(_book(os.getpid()).lrange(f"book:{label}", 0, -1)).count(event.encode())


def pass_gate(name: str) -> None:
    """Wait until the test opens the gate, which then stays open."""
    opened = _book(os.getpid()).blmove(f"gate:{name}", f"gate:{name}", GATE_SECONDS)
    if opened is None:
        raise TimeoutError(f"the gate {name} was not opened")


def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """An idempotent, bound task `sheet.<name>`."""
    given = {"base": IdempotentTask, "bind": True, **options}
    made: Callable[[Callable[..., Any]], Any] = app.task(name=f"sheet.{name}", **given)
    return made


@task("work")
def work(self: Any, label: str, gate: str | None = None) -> str:
    write(label, "start")
    if gate is not None:
        pass_gate(gate)
    write(label, "end")
    return label


@task("checking")
def checking(self: Any, label: str, gate: str) -> str:
    """Asks for its lease before its effect."""
    write(label, "start")
    pass_gate(gate)
    self.claim.check()
    write(label, "end")
    return label


@worker_init.connect  # type: ignore[untyped-decorator]
def use_before_the_fork(**_: Any) -> None:
    """The main process does a piece of work itself, before it has children."""
    if "first_use" in app.conf:
        work.apply((app.conf.first_use,))


@control_command(args=[("label", str)])  # type: ignore[untyped-decorator]
def use_again(_state: Any, label: str) -> Any:
    """The main process does a piece of work itself, beside its children."""
    return work.apply((label,)).get(disable_sync_subtasks=False)


@task("bypassing", idempotency_when_unavailable="run")
def bypassing(self: Any, label: str) -> str:
    write(label, "start")
    return label


@task("retrying", max_retries=5)
def retrying(self: Any, label: str, attempts: int, countdown: float = 0) -> int:
    write(label, f"attempt {self.request.retries}")
    if self.request.retries + 1 < attempts:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@task("autoretrying", autoretry_for=(ConnectionError,), max_retries=3, default_retry_delay=0)
def autoretrying(self: Any, label: str, attempts: int, note: str = "") -> int:
    write(label, f"attempt {self.request.retries}")
    if self.request.retries + 1 < attempts:
        raise ConnectionError("the other side is away")
    return int(self.request.retries)


@task("dies_after_publishing", max_retries=3)
def dies_after_publishing(self: Any, label: str) -> str:
    """The worker dies when the next attempt is published and this one is not acknowledged."""
    write(label, f"attempt {self.request.retries}")
    if self.request.retries == 0:
        self.retry(countdown=0, throw=False)
        kill_worker()
    return label


@task("retries_nowhere", max_retries=3)
def retries_nowhere(self: Any, label: str) -> str:
    """The first time, its next attempt is sent to a queue that no broker would take."""
    if write(label, f"attempt {self.request.retries}") == 1:
        raise self.retry(countdown=0, serializer="no such serializer")
    return label


@task("kills", idempotency_lease=1)
def kills(self: Any, label: str, kind: str, deaths: int) -> str:
    """Kills its child or all of its worker, the first `deaths` times."""
    write(label, "start")
    if times(label, "start") <= deaths:
        if kind == "worker":
            kill_worker()
        os.kill(os.getpid(), signal.SIGKILL)
    write(label, "end")
    return label


def kill_worker() -> None:
    """SIGKILL to the main process and to this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@task("ends", max_retries=0)
def ends(self: Any, label: str, how: str) -> None:
    write(label, "start")
    if how == "exit" and times(label, "start") == 1:
        sys.exit(3)
    endings: dict[str, Exception] = {
        "ignore": Ignore(),
        "reject": Reject("no", requeue=False),
        "fail": ValueError("as the test says"),
    }
    if how in endings:
        raise endings[how]


@task("rejects_once")
def rejects_once(self: Any, label: str) -> str:
    write(label, "start")
    if times(label, "start") == 1:
        raise Reject("again", requeue=True)
    return label


@task("limited", time_limit=2, acks_on_failure_or_timeout=False, idempotency_lease=1)
def limited(self: Any, label: str) -> str:
    """Runs into its hard time limit the first time; its message is then delivered again."""
    write(label, "start")
    if times(label, "start") == 1:
        pass_gate("never")
    return label


@task("stubborn", time_limit=1, idempotency_lease=1)
def stubborn(self: Any, label: str) -> str:
    """Runs into its hard time limit the first time, and SIGTERM does not end it."""
    if write(label, "start") == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pass_gate("never")
    return label


@task("add")
def add(self: Any, label: str, x: int, y: int) -> int:
    write(label, f"add {x} {y}")
    return x + y


@task("add_to")
def add_to(self: Any, total: int, label: str, more: int) -> int:
    write(label, f"add_to {total} {more}")
    return total + more


@task("total")
def total(self: Any, numbers: list[int], label: str) -> int:
    write(label, "total")
    return sum(numbers)


@task("replaced")
def replaced(self: Any, label: str, x: int) -> int:
    write(label, "replaced")
    return int(self.replace(add.s(label, x, 1)))


@task("fails")
def fails(self: Any, label: str) -> None:
    write(label, "fails")
    raise ValueError("as the test says")


@task("fails_once")
def fails_once(self: Any, label: str, gate: str) -> str:
    if write(label, "start") == 1:
        pass_gate(gate)
        raise ValueError("as the test says")
    return label


@task("linked")
def linked(self: Any, value: Any, label: str) -> None:
    write(label, f"linked {value}")


@task("mourns")
def mourns(self: Any, label: str) -> None:
    write(label, "mourns")


@task("keyed", idempotency_key=lambda _task, label, *_, **__: f"keyed/{label}")
def keyed(self: Any, label: str, value: Any, gate: str | None = None) -> Any:
    write(label, "start")
    if gate is not None:
        pass_gate(gate)
    return value


class Size(Enum):
    LARGE = "large"


@dataclass(frozen=True)
class Place:
    room: str
    floor: int = 0


@task("ordered")
def ordered(self: Any, label: str, what: Any, count: int = 1) -> str:
    """Returns the hash seed of the process that did the work."""
    write(label, "start")
    return os.environ.get("PYTHONHASHSEED", "")


@task("returns", ignore_result=False)
def returns(self: Any, label: str, what: str) -> Any:
    write(label, "start")
    values: dict[str, Any] = {"none": None, "zero": 0, "false": False, "empty": [], "text": ""}
    values |= {"set": {1}, "object": object(), "large": "x" * 10_000_000}
    return values[what]


@task("skips", idempotency_on_duplicate="skip")
def skips(self: Any, label: str) -> str:
    write(label, "start")
    return label


@task("raises", idempotency_on_duplicate="raise")
def raises(self: Any, label: str) -> str:
    write(label, "start")
    return label


@task("skips_running", idempotency_on_running="skip")
def skips_running(self: Any, label: str, gate: str) -> str:
    write(label, "start")
    pass_gate(gate)
    return label


@task("raises_running", idempotency_on_running="raise")
def raises_running(self: Any, label: str, gate: str) -> str:
    write(label, "start")
    pass_gate(gate)
    return label


@task("keeps_last", idempotency_on_running="keep_last", idempotency_key_args=("label",))
def keeps_last(self: Any, label: str, number: int, gate: str = "") -> int:
    write(label, f"start {number}")
    if gate:
        pass_gate(gate)
    write(label, f"end {number}")
    return number


@task("starts_a_chord")
def starts_a_chord(self: Any, label: str) -> list[str]:
    """The ids of its part that keeps the last, and of its body."""
    parts = [keeps_last.s(label, 2), add.s(label, 1, 1)]
    body = chord(parts)(total.s(label))
    return [body.parent.results[0].id, body.id]


class DiesWaiting(IdempotentTask):
    """The worker dies once, when it turns a message away: with it noted, and published or not."""

    abstract = True

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        again = super().signature_from_request(request, *args, **options)
        label, number, when = (*request.args, "")[:3]
        if when and write(f"{label} {number}", "dies") == 1:
            if when == "published":
                again.apply_async(add_to_parent=False)
            kill_worker()
        return again


@task(
    "dies_waiting",
    base=DiesWaiting,
    idempotency_on_running="keep_last",
    idempotency_key_args=("label",),
)
def dies_waiting(self: Any, label: str, number: int, when: str = "") -> int:
    write(label, f"start {number}")
    return number


@task("published_once", idempotency_at_publish=True)
def published_once(self: Any, label: str, gate: str, how: str = "") -> str:
    write(label, "start")
    pass_gate(gate)
    if how == "fail":
        raise ValueError("as the test says")
    return label


@task("for_user", idempotency_scope="user")
def for_user(self: Any, label: str, user_id: str | None = None) -> str:
    write(label, "start")
    return label


@task("for_device", idempotency_scope="device")
def for_device(self: Any, label: str, device_id: str | None = None) -> str:
    write(label, "start")
    return label


@task("pickled", serializer="pickle")
def pickled(self: Any, label: str, price: Any) -> str:
    write(label, "start")
    return f"{label} {decimal.Decimal(price)}"


@task("unprotected", idempotency_enabled=False)
def unprotected(self: Any, label: str) -> str:
    write(label, "start")
    return label


@task("countdown")
def countdown(self: Any, label: str, left: int) -> int:
    """Calls itself, directly, until nothing is left."""
    write(label, f"left {left}")
    return 0 if left == 0 else 1 + int(self(label, left - 1))
