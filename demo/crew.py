"""The processes of the demo but for its servers: each by the command of its service.

Invariant: all that it started has ended when `close` has returned, the latest first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from .celery_app import VISIBILITY
from .facility_settings import SMTP
from .listening import Listening
from .processes import Child, ProcessFailed, uninterrupted
from .services import native
from .stage import Stage, without_settings

BEATS: Final = 2
LEASE_SECONDS: Final = 5.0
REFRESH_SECONDS: Final = 1
MIGRATE_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0

Given = Callable[[str], Mapping[str, object]]
"""For an address, what a command needs beside it."""


class Crew:
    """Starts services in the environment of a stage.

    metrics_address: of the worker. visibility_seconds: how long the broker waits for a message.
    smtp: HOST:PORT of the mail server.
    """

    def __init__(
        self, stage: Stage, metrics_address: str, visibility_seconds: float, smtp: str
    ) -> None:
        self.folder = stage.folder
        self.env: Mapping[str, str] = {
            **without_settings(),
            **stage.environment(LEASE_SECONDS, metrics_address),
            "IDEMWATCH_METRICS_ADVERTISE": "127.0.0.1",
            VISIBILITY: str(visibility_seconds),
            SMTP: smtp,
            "TMPDIR": str(stage.folder),  # a pool that is killed leaves a folder there
        }
        self._children: list[Child] = []
        self._listening: list[Listening] = []
        self.beats: list[Child] = []

    def run(self, service: str) -> None:
        """Run a service that ends by itself. Raises ProcessFailed."""
        child = self.start(service, service)
        if not child.wait(MIGRATE_SECONDS) or child.exit_code != 0:
            problem = f"failed (exit code {child.exit_code})"
            raise ProcessFailed(service, problem, child.log_tail())
        self.stop(child)

    def start(self, name: str, service: str, **given: object) -> Child:
        """Start a service; its log is `name`.log."""
        words = native(service, **given)
        with uninterrupted():
            child = Child(name, words, folder=self.folder, env=self.env, cwd=self.folder)
            self._children.append(child)
        return child

    def listen(self, service: str, given: Given, *, ready: str) -> Listening:
        """Start a service that listens on an address; its command names it as it is named itself.

        given: what else the command needs, for an address. ready: the path that answers 200 then.
        """
        with uninterrupted():
            running = Listening(
                service,
                lambda address: native(service, **{service: address, **given(address)}),
                folder=self.folder,
                env=self.env,
                ready=ready,
            )
            self._listening.append(running)
        return running

    def start_beats(self) -> None:
        """Start all beats."""
        self.beats = [self.start(f"beat-{number}", "beat") for number in range(1, BEATS + 1)]

    def freeze_beats(self) -> None:
        """SIGSTOP: they are there, and do nothing."""
        for beat in self.beats:
            beat.send_all(signal.SIGSTOP)

    def thaw_beats(self) -> None:
        """SIGCONT."""
        for beat in self.beats:
            beat.send_all(signal.SIGCONT)

    def stop_beats(self) -> None:
        """End them in order: nothing more is fired."""
        self.stop(*self.beats)
        self.beats = []

    @contextmanager
    def traffic(self, pattern: str) -> Iterator[None]:
        """Publish while the block runs."""
        child = self.start(f"traffic-{pattern}", "traffic", pattern=pattern)
        try:
            yield
        finally:
            self.stop(child)

    def stop(self, *children: Child, deadline_seconds: float = STOP_SECONDS) -> None:
        """End them in order, side by side."""
        for child in children:
            child.send_all(signal.SIGCONT)
            child.send(signal.SIGTERM)
        for child in children:
            child.stop(deadline_seconds=deadline_seconds)
            self._children.remove(child)

    def check(self) -> None:
        """Raise ProcessFailed if one that should run has ended."""
        for child in (*self._children, *(one.child for one in self._listening)):
            if not child.running():
                problem = f"ended (exit code {child.exit_code})"
                raise ProcessFailed(child.name, problem, child.log_tail())

    def stop_listening(self) -> None:
        """End in order all that listens: nothing is measured or told any more."""
        for one in reversed(self._listening):
            one.child.stop()
        self._listening.clear()

    def close(self) -> None:
        """End everything at once."""
        for child in (*(one.child for one in self._listening), *reversed(self._children)):
            child.kill()
