"""The course of the demo: set the stage, start everything, publish, settle, count.

Invariant: it counts only when nothing is on its way any more. That is known for sure only without
a worker, since a message on its way from the queue to the worker is nowhere in Redis: so the idle
worker is stopped first, and started again if a message turns up after all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import redis
from idemwatch.idempotency.settings import Settings

from .cast import Cast, Options, assemble
from .interrupts import Interrupts
from .ledger import MAIL
from .scenarios import LIMIT_SECONDS, Outcome, Phases, Scene
from .scenarios import judge as judge_scenario
from .scoreboard import NOTHING
from .screen import Screen, View, delivered
from .stage import set_stage
from .summary import Summary
from .verdict import judge, without_repeated_mail
from .worker import DemoWorker

TICK_SECONDS: Final = 0.25
SETTLE_SECONDS: Final = 600.0


def run(options: Options, settings: Settings, screen: Screen, interrupts: Interrupts) -> Summary:
    """Play the demo to its end. Raises ConfigurationError, ProcessFailed or Interrupted."""
    options.check(settings)
    with ExitStack() as stack:
        screen.say("starting PostgreSQL and Redis ...")
        stage = stack.enter_context(set_stage(settings))
        play = Play(stack.enter_context(assemble(stage, options, screen)), options, screen)
        stack.callback(play.close)
        stack.enter_context(screen)
        with interrupts.gently():
            play.publish(interrupts.requested)
            play.settle()
        return play.summary()


class Play:
    """A running demo: one worker at a time, the traffic, and what both have come to."""

    def __init__(self, cast: Cast, options: Options, screen: Screen) -> None:
        self._cast, self._options, self._screen = cast, options, screen
        self._began = time.monotonic()
        self._scene = Scene(cast.stage, cast.crew, cast.watch.notifications)
        self._worker = cast.worker
        self._broker = redis.Redis.from_url(cast.stage.broker_url)
        self._earlier = NOTHING
        self._latest = NOTHING
        self._outcome: Outcome | None = None
        self._told = 0

    def publish(self, stop: threading.Event) -> None:
        """Publish until the script or the time is over, or `stop` is set."""
        ends = time.monotonic() + self._seconds()
        with self._cast.crew.traffic(self._options.pattern):
            script = self._script()
            try:
                while not stop.is_set() and time.monotonic() < ends:
                    phase = next(script, None)
                    if phase is None:
                        break
                    self._scene.fired |= self._cast.watch.look()
                    self._show(f"{phase} (Ctrl-C ends)")
                    stop.wait(TICK_SECONDS)
            finally:
                script.close()

    def settle(self) -> None:
        """Wait until no message is left. Past a generous deadline it is counted all the same."""
        self._judge_scenario()
        self._cast.crew.stop_beats()
        self._cast.crew.stop_listening()
        self._wait_until(self._idle)
        self._stop_worker()
        while self._messages_left():
            self._worker = DemoWorker(self._cast.crew)
            self._worker.wait()
            settled = self._wait_until(self._idle)
            self._stop_worker()
            if not settled:
                break

    def summary(self) -> Summary:
        """What it all came to."""
        ledger, watch = self._cast.ledger, self._cast.watch
        taken_over = self._earlier.counts[MAIL, "taken_over"]
        effects, again = without_repeated_mail(ledger.effects(), taken_over)
        return Summary.of(
            self._earlier.total(),
            judge(ledger.expected(), effects),
            seconds=round(self._elapsed(), 1),
            messages=ledger.published().messages,
            redelivered=ledger.redelivered(),
            killed=ledger.deaths(),
            mails_again=again,
            tasks={row.task: row.executed for row in self._earlier.rows()},
            addresses=self._cast.addresses,
            alerts=tuple(sorted(watch.ever)),
            notifications=watch.notifications(),
            outcome=self._outcome,
        )

    def close(self) -> None:
        """Close our connections."""
        self._broker.close()

    def _seconds(self) -> float:
        """How long it publishes at most."""
        if self._options.seconds is not None:
            return self._options.seconds
        scenario = self._options.scenario
        return float("inf") if scenario is None or scenario.endless else LIMIT_SECONDS

    def _script(self) -> Phases:
        scenario = self._options.scenario
        return _endless() if scenario is None else scenario.script(self._scene, scenario)

    def _judge_scenario(self) -> None:
        """Now, since what is ended on purpose afterwards is no trouble."""
        scenario, told = self._options.scenario, self._cast.watch.notifications()
        if scenario is not None:
            self._outcome = judge_scenario(scenario, told, self._scene.began, self._scene.fired)

    def _stop_worker(self) -> None:
        self._earlier += self._worker.score()
        self._latest = NOTHING
        self._worker.stop()

    def _idle(self) -> bool:
        return not self._latest.active and not self._messages_left()

    def _messages_left(self) -> int:
        """Messages in the queue, and those given to the worker and not acknowledged."""
        namespace = self._cast.stage.namespace
        with self._broker.pipeline(transaction=True) as pipe:
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

    def _tell(self) -> None:
        """What was delivered since it was told last."""
        notifications = self._cast.watch.notifications()
        for one in notifications[self._told :]:
            self._screen.say(f"{self._elapsed():4.0f} s  {delivered(one)}")
        self._told = len(notifications)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _show(self, phase: str) -> None:
        self._cast.crew.check()
        self._tell()
        self._latest = self._worker.score()
        watch = self._cast.watch
        self._screen.show(
            View(
                phase=phase,
                elapsed_seconds=self._elapsed(),
                score=self._earlier + self._latest,
                addresses=self._cast.addresses,
                published=self._cast.ledger.published(),
                firing=watch.firing,
                pages=watch.pages,
            )
        )


def _endless() -> Phases:
    while True:
        yield "publishing"
