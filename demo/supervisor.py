"""The course of the demo: set the stage, start a worker, publish, settle, count.

Invariant: it counts only when nothing is on its way any more. That is known for sure only without
a worker, since a message on its way from the queue to the worker is nowhere in Redis: so the idle
worker is stopped first, and started again if a message turns up after all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import redis
from celery import Celery
from idemwatch.idempotency.settings import Settings
from idemwatch.idempotency.settings import load as load_settings

from .app import configure
from .interrupts import Interrupts
from .ledger import Ledger, judge
from .scoreboard import NOTHING, Score
from .screen import Screen, View
from .stage import Stage, set_stage
from .summary import Summary
from .traffic import Traffic
from .worker import DemoWorker

TICK_SECONDS: Final = 0.25
SETTLE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `seconds` None: until Ctrl-C."""

    seconds: float | None
    metrics_address: str


def run(options: Options, settings: Settings, screen: Screen, interrupts: Interrupts) -> Summary:
    """Play the demo to its end. Raises ConfigurationError, ProcessFailed or Interrupted."""
    with ExitStack() as stack:
        screen.say("starting PostgreSQL and Redis ...")
        stage = stack.enter_context(set_stage(settings))
        ledger = Ledger(stage.database_url)
        stack.callback(ledger.close)
        ledger.create()
        screen.say("starting a worker ...")
        play = Play(stage, ledger, options, screen)
        stack.callback(play.close)
        screen.say(f"metrics are served at {play.metrics_url}")
        stack.enter_context(screen)
        with interrupts.gently():
            play.publish(interrupts.requested)
            play.settle()
        return play.summary()


class Play:
    """A running demo: one worker at a time, the traffic, and what both have come to."""

    def __init__(self, stage: Stage, ledger: Ledger, options: Options, screen: Screen) -> None:
        self._stage, self._ledger, self._options, self._screen = stage, ledger, options, screen
        self._began = time.monotonic()
        self._worker = DemoWorker.start(stage, options.metrics_address)
        self._publisher = Celery("publisher", set_as_current=False)
        configure(self._publisher, load_settings({}, stage.environment(1, "")))
        self._traffic = Traffic(self._publisher)
        self._redis = redis.Redis.from_url(stage.redis_url)
        self._earlier = NOTHING
        self._latest = NOTHING
        self.metrics_url = self._worker.metrics_url

    def publish(self, stop: threading.Event) -> None:
        """Publish until the time is over or `stop` is set."""
        seconds = self._options.seconds
        ends = None if seconds is None else time.monotonic() + seconds
        while not stop.is_set() and (ends is None or time.monotonic() < ends):
            self._traffic.publish_some(set(self._ledger.effects()))
            self._show("publishing (Ctrl-C ends)")
            stop.wait(TICK_SECONDS)

    def settle(self) -> None:
        """Wait until no message is left. Past a generous deadline it is counted all the same."""
        self._wait_until(self._idle)
        self._stop_worker()
        while self._messages_left():
            self._worker = DemoWorker.start(self._stage, self._options.metrics_address)
            settled = self._wait_until(self._idle)
            self._stop_worker()
            if not settled:
                break

    def summary(self) -> Summary:
        """What it all came to."""
        row = self._earlier.total()
        return Summary.of(
            row,
            judge(self._traffic.expected, self._ledger.effects()),
            seconds=round(time.monotonic() - self._began, 1),
            messages=self._traffic.messages,
            redelivered=self._ledger.redelivered(),
            killed=self._ledger.deaths(),
        )

    def close(self) -> None:
        """End the worker at once, if it is still there, and our connections."""
        self._worker.kill()
        self._publisher.close()
        self._redis.close()

    def _stop_worker(self) -> None:
        self._earlier += self._worker.score()
        self._latest = NOTHING
        self._worker.stop()

    def _idle(self) -> bool:
        return not self._latest.active and not self._messages_left()

    def _messages_left(self) -> int:
        """Messages in the queue, and those given to the worker and not acknowledged."""
        namespace = self._stage.namespace
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.llen(f"{namespace}:{namespace}")
            pipe.hlen(f"{namespace}:unacked")
            return sum(pipe.execute())

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        """Show how it goes until `condition` holds; False past the deadline."""
        deadline, pause = time.monotonic() + SETTLE_SECONDS, threading.Event()
        self._show("settling")
        while not condition():
            if time.monotonic() > deadline:
                return False
            pause.wait(TICK_SECONDS)
            self._show("settling")
        return True

    def _show(self, phase: str) -> None:
        self._latest = self._worker.score()
        self._screen.show(
            View(
                phase=phase,
                elapsed_seconds=time.monotonic() - self._began,
                score=self._score(),
                metrics_url=self.metrics_url,
                works=len(self._traffic.expected),
                messages=self._traffic.messages,
                effects=sum(self._ledger.effects().values()),
            )
        )

    def _score(self) -> Score:
        return self._earlier + self._latest
