"""One play: the plan carried out on one side, and the history of what came of it.

Invariant: what the plan says is done at its time on either side, however the side fares; the
history is read when no message is left, or when the time to settle is over and that is told.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Final

from celery import Celery
from kombu.connection import Connection

from .simulate_broker import Broker
from .simulate_calls import Call
from .simulate_crew import Crew, kill
from .simulate_harness import HEADER
from .simulate_history import History
from .simulate_ledger import Ledger
from .simulate_plan import LEASE_SECONDS, Outage, Plan, Work
from .simulate_redirect import QUEUE
from .simulate_stage import Place

TICK_SECONDS: Final = 0.1
SETTLE_SECONDS: Final = 120.0
"""Under plain Celery a plan of much trouble may take that long: redeliveries multiply."""
QUIET_SECONDS: Final = 1.0
"""A message between the queue and a worker is nowhere in Redis, so an empty broker is looked at
again."""

Progress = Callable[[str, float], None]
"""Told a phase, and how much of the play is over, from 0 to 1."""
Action = Callable[[], None]


def play(
    place: Place, plan: Plan, calls: Sequence[Call], app: str | None, progress: Progress
) -> History:
    """Play the plan at a place. Raises ProcessFailed if no worker can be had."""
    with ExitStack() as stack:
        ledger = Ledger(place.servers.ledger_url)
        stack.callback(ledger.close)
        tasks = sorted({call.task for call in calls})
        crew = Crew(place, app, tasks, plan.options.workers)
        stack.callback(crew.close)
        progress("starting workers", 0.0)
        crew.wait()
        running = _Play(place, plan, calls, ledger, crew, progress)
        stack.callback(running.close)
        return running.run()


class _Play:
    """A play that is going on."""

    def __init__(
        self,
        place: Place,
        plan: Plan,
        calls: Sequence[Call],
        ledger: Ledger,
        crew: Crew,
        progress: Progress,
    ) -> None:
        self._place, self._plan, self._calls = place, plan, calls
        self._ledger, self._crew, self._progress = ledger, crew, progress
        self._broker = Broker(place.servers.broker_url)
        self._published: dict[str, str] = {}
        self._connection = Connection(place.servers.broker_url)
        self._app = Celery("simulate", set_as_current=False)
        self._pause = threading.Event()
        self._began = 0.0

    def run(self) -> History:
        """From the first message until none is left."""
        self._began = time.monotonic()
        self._ledger.begin()
        script = sorted(self._script(), key=lambda step: step[0])
        for at, action in script:
            self._wait_until(at, "publishing")
            action()
        settled = self._settle()
        return self._history(settled)

    def close(self) -> None:
        """Close our connections."""
        self._connection.close()
        self._broker.close()
        self._app.close()

    def _script(self) -> Iterator[tuple[float, Action]]:
        """Everything that is done, and when."""
        for work, call in zip(self._plan.works, self._calls, strict=True):
            task_id = str(uuid.uuid4())
            yield work.at, partial(self._publish, work, call, task_id)
            for copy in work.copies:
                its_id = task_id if copy.same_id else str(uuid.uuid4())
                yield work.at + copy.after, partial(self._publish, work, call, its_id)
        for outage in self._plan.outages:
            yield outage.at, partial(self._take_away, outage)
            yield outage.at + outage.lasts, self._place.relays[outage.store].back
        for at, number in self._plan.idle_kills:
            yield at, partial(self._kill_idle, number)

    def _publish(self, work: Work, call: Call, task_id: str) -> None:
        self._published[task_id] = call.work
        told = {"work": call.work, "lasts": work.lasts, "death": None}
        if work.death is not None:
            told["death"] = asdict(work.death)
        self._app.send_task(
            call.task,
            call.args,
            call.kwargs,
            task_id=task_id,
            queue=QUEUE,
            headers={HEADER: told},
            connection=self._connection,
            ignore_result=True,
        )

    def _take_away(self, outage: Outage) -> None:
        self._place.relays[outage.store].away(hangs=outage.hangs)

    def _kill_idle(self, number: int) -> None:
        """Kill a process that does nothing; if all are at work, none is."""
        busy = self._ledger.busy(self._crew.name(number))
        found = self._crew.idle_process(number, busy)
        if found is not None:
            self._ledger.kill(*found, "idle")
            kill(found[1])

    def _wait_until(self, at: float, phase: str) -> None:
        while (left := at - self._elapsed()) > 0:
            self._pause.wait(min(left, TICK_SECONDS))
            self._tick(phase)

    def _tick(self, phase: str) -> None:
        self._crew.mend()
        # Settling takes about as long as a lease and a redelivery.
        whole = self._plan.seconds + LEASE_SECONDS * 2
        self._progress(phase, min(1.0, self._elapsed() / whole))

    def _settle(self) -> bool:
        """Wait until no message is left; False past the deadline."""
        deadline, quiet_since = self._elapsed() + SETTLE_SECONDS, None
        while self._elapsed() < deadline:
            self._pause.wait(TICK_SECONDS)
            self._tick("settling")
            if self._broker.messages_left():
                quiet_since = None
                continue
            quiet_since = self._elapsed() if quiet_since is None else quiet_since
            if self._elapsed() - quiet_since >= QUIET_SECONDS:
                return True
        return False

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _history(self, settled: bool) -> History:
        seconds = self._elapsed() - (QUIET_SECONDS if settled else 0.0)
        events = self._ledger.events()
        vanished = self._broker.vanished() if settled else set()
        return History(
            works={call.work: call.kind for call in self._calls},
            deliveries=events.deliveries,
            executions=events.executions,
            effects=events.effects,
            killed=events.killed,
            messages=self._plan.messages,
            seconds=seconds,
            checks=self._crew.checks(),
            settled=settled,
            vanished=frozenset(self._published[one] for one in vanished if one in self._published),
        )


def nothing(_phase: str, _part: float) -> None:
    """Progress that nobody looks at."""
