"""What is put around the body of a task under test: each run is written down, slowed, killed.

Invariant: what a message tells of its work travels in a header of its own, so a task's arguments,
and with them its key, are those that a user's publisher would send.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from celery.signals import task_postrun, task_prerun

from .simulate_history import OK
from .simulate_ledger import Journal, make_effect

HEADER: Final = "idemwatch_simulated"
CURRENT: Final[ContextVar[tuple[str, int]]] = ContextVar("idemwatch_simulated")
"""The work that is done here, and the number of this execution."""


class Harness:
    """Watches tasks in a worker's process.

    writes_effects: for tasks that write none themselves, a body that came to its end is one.
    """

    def __init__(self, journal: Journal, *, writes_effects: bool) -> None:
        self._journal, self._writes_effects = journal, writes_effects

    def install(self, tasks: Mapping[str, Any]) -> None:
        """Put it around these tasks, and listen to what Celery says of them."""
        for task in tasks.values():
            task.run = self._watched(task)
        task_prerun.connect(self._on_delivery, weak=False)
        task_postrun.connect(self._on_return, weak=False)

    def _watched(self, task: Any) -> Callable[..., Any]:
        body = task.run

        @functools.wraps(body)  # its signature makes the key
        def run(*args: Any, **kwargs: Any) -> Any:
            told = told_of(task.request)
            if told is None:  # called by another task, or directly
                return body(*args, **kwargs)
            return self._run(task, told, functools.partial(body, *args, **kwargs))

        return run

    def _run(self, task: Any, told: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        work, journal = str(told["work"]), self._journal
        number = task.request.idemwatch_execution = journal.begin(work, task.request.id)
        token, outcome = CURRENT.set((work, number)), OK
        try:
            threading.Event().wait(float(told["lasts"]))
            self._die(told, "before")
            result = body()
            if self._writes_effects:
                make_effect(journal.connection, work, number)
            self._die(told, "after")
            return result
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            CURRENT.reset(token)
            journal.end(number, outcome, _lease_lost(task))

    def _die(self, told: Mapping[str, Any], point: str) -> None:
        """SIGKILL, if the work's plan has it here and it has not happened yet."""
        death = told.get("death")
        if not death or death["point"] != point:
            return
        whole, work = bool(death["whole_worker"]), str(told["work"])
        if not self._journal.dies(work, None if whole else os.getpid(), point):
            return
        if whole:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def _on_delivery(self, task: Any, **_: object) -> None:
        told = told_of(task.request)
        if told is not None:
            again = bool((task.request.delivery_info or {}).get("redelivered"))
            self._journal.deliver(str(told["work"]), task.request.id, again)

    def _on_return(self, task: Any, **_: object) -> None:
        number = getattr(task.request, "idemwatch_execution", None)
        if number is not None:
            self._journal.returned(number)


def told_of(request: Any) -> Mapping[str, Any] | None:
    """What the message says of its work; None for one that is none of the simulation's."""
    told = (request.headers or {}).get(HEADER) or getattr(request, HEADER, None)
    return told if isinstance(told, dict) else None


def _lease_lost(task: Any) -> bool:
    """Whether the execution was no longer the holder; a plain task never was one."""
    execution = getattr(task.request, "idempotency_execution", None)
    lease = getattr(execution, "lease", None)
    return bool(getattr(lease, "lost", False))
