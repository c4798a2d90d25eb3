"""The app of support.app with batches: each execution writes down which messages it did."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from celery_batches import SimpleRequest
from idemwatch.idempotency.batches import IdempotentBatches

from support.app import app, pass_gate, times, write

__all__ = ["app"]
app.conf.worker_prefetch_multiplier = 40


def one(label: str, x: int, y: int = 0, how: str = "") -> None:
    """What a message says."""


def batches(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A bound task `sheet.<name>` whose messages come in batches."""
    given = {"call": one, "flush_every": 20, "flush_interval": 0.3, "bind": True, **options}
    made: Callable[[Callable[..., Any]], Any] = app.task(
        name=f"sheet.{name}", base=IdempotentBatches, **given
    )
    return made


@batches("batched", idempotency_ignore_args=("how",))
def batched(self: Any, requests: Sequence[SimpleRequest]) -> list[Any]:
    return [_do(self, *request.args, **request.kwargs) for request in requests]


def _do(task: Any, label: str, x: int, y: int = 0, how: str = "") -> Any:
    write(label, f"did {x}")
    if how == "raise":
        raise ValueError("as the test says")
    if how == "fail":
        return ValueError("this one alone")
    if how == "gate":
        pass_gate(label)
    if how == "kill" and times(label, f"did {x}") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x + y


@batches("keyed_batch", idempotency_key_args=("label",))
def keyed_batch(self: Any, requests: Sequence[SimpleRequest]) -> dict[str, int]:
    return {request.id: _do(self, *request.args, **request.kwargs) for request in requests}
