"""One collector, refreshed in the background by a thread of its own.

Invariants: a reader takes what is there, and never a lock that is held while a source is asked; a
source that fails or hangs counts as failed at once, and what it told last is told until that is
old; a source that is slow is asked so seldom that it costs a tenth of a core, not more.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from idemwatch.idempotency.errors import IdempotencyError

from .collector import Collector
from .snapshot import NOTHING, Snapshot, snapshot_of, without

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 15.0
LEAST_KEPT_SECONDS: Final = 60.0
LEAST_DEADLINE_SECONDS: Final = 30.0
PACE: Final = 10
"""A refresh is followed by a pause that is so many times as long."""
LONGEST_PAUSE_SECONDS: Final = 300.0
LONGEST_PAUSE_AFTER_FAILURE_SECONDS: Final = 60.0
LONGEST_TOLD: Final = 300
_LOGIN: Final = re.compile(r"(://)\S*@")
_PASSWORD: Final = re.compile(r"(?i)(passw(?:or)?d\s*[=:]\s*)\S+")


@dataclass(frozen=True, slots=True)
class Standing:
    """What the refreshes that ended have left. `read_at` is of the monotonic clock."""

    snapshot: Snapshot = NOTHING
    read_at: float = float("-inf")
    succeeded_at: float = 0.0
    took_seconds: float = 0.0
    problem: str | None = None
    begun: bool = False
    """Whether a refresh has ended, well or not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A collector as a scrape sees it: healthy when there is no `problem`.

    `succeeded_at`: Unix time, 0 for never. `took_seconds`: of the last refresh that ended, or of
    the one that hangs.
    """

    name: str
    snapshots: tuple[Snapshot, ...]
    problem: str | None
    took_seconds: float
    succeeded_at: float


class Refresher:
    """Keeps the snapshot of one collector. Only its own thread asks the collector."""

    def __init__(
        self,
        collector: Collector,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        deadline_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = collector.name
        self.dropped: dict[str, int] = {}
        """Series over a cap so far, by family; replaced, never changed."""
        self._collector, self._clock, self._interval = collector, clock, interval_seconds
        self._deadline = deadline_seconds or max(LEAST_DEADLINE_SECONDS, 2 * interval_seconds)
        self.pause_seconds = interval_seconds
        """How long it waits after the refresh that ended last."""
        self._instead = snapshot_of(collector.failed())
        self._standing = Standing()
        self._began: float | None = None
        self._told: str | None = None
        self._telling = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"idemwatch-{self.name}", daemon=True
        )

    def start(self) -> None:
        """Refresh now, and again and again until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further refresh."""
        self._closing.set()

    def close(self, seconds: float) -> None:
        """Wait for the thread, for so long at most, and give back connections."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        try:
            self._collector.close()
        except Exception as error:
            log.warning("collector %s did not close in order: %s", self.name, _kind(error))

    def seen(self) -> Seen:
        """The collector as it is now; waits for nothing."""
        now, standing = self._clock(), self._standing
        hung = self._hung_seconds(now)
        old = now - standing.read_at > self.kept_seconds
        problem = standing.problem
        if hung is not None:
            problem = f"no answer for {hung:.0f} s"
        elif not standing.begun:
            problem = "its first refresh has not ended yet"
        elif problem is None and old:
            problem = "its last refresh is old, and no other one has begun"
        last: tuple[Snapshot, ...] = () if old else (standing.snapshot,)
        if problem is not None and (standing.begun or hung is not None):
            last = (*(without(one, self._instead) for one in last), self._instead)
        took = standing.took_seconds if hung is None else hung
        return Seen(self.name, last, problem, took, standing.succeeded_at)

    @property
    def kept_seconds(self) -> float:
        """How old a snapshot is told; what is slow is not old before its next refresh ends."""
        return max(LEAST_KEPT_SECONDS, 4 * self._interval, self.pause_seconds + self._deadline)

    def watch(self) -> None:
        """Log that a refresh hangs, once: its own thread cannot."""
        hung = self._hung_seconds(self._clock())
        if hung is not None:
            reason = (
                f"no answer for {hung:.0f} s: see whether its server is frozen, cut off or locked"
            )
            self._tell(reason)

    def refresh(self) -> None:
        """Ask the collector once, in this thread."""
        self._began = began = self._clock()
        try:
            snapshot = snapshot_of(self._collector.collect())
        except (Exception, SystemExit) as error:  # an app's module may call exit() when imported
            self._failed(error, self._clock() - began)
        else:
            self._succeeded(snapshot, self._clock() - began)
        finally:
            self._began = None

    def _run(self) -> None:
        while not self._closing.is_set():
            self.refresh()
            self._closing.wait(self.pause_seconds)

    def _succeeded(self, snapshot: Snapshot, took: float) -> None:
        self.pause_seconds = self._pause_after(took, LONGEST_PAUSE_SECONDS)
        for name, number in snapshot.dropped.items():
            self.dropped = {**self.dropped, name: self.dropped.get(name, 0) + number}
        self._standing = Standing(snapshot, self._clock(), time.time(), took, begun=True)
        with self._telling:
            before, self._told = self._told, None
        if before is not None:
            log.info("collector %s is back", self.name)

    def _failed(self, error: BaseException, took: float) -> None:
        self.pause_seconds = self._pause_after(took, LONGEST_PAUSE_AFTER_FAILURE_SECONDS)
        problem = told(error)
        self._standing = replace(self._standing, took_seconds=took, problem=problem, begun=True)
        if self._tell(problem) and not isinstance(error, IdempotencyError):
            # The message of an error that is not ours may hold anything, a secret too.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("collector %s failed at:\n%s%s", self.name, where, _kind(error))

    def _pause_after(self, took: float, longest: float) -> float:
        """How long one that hung took does not tell what it costs."""
        if took > self._deadline:
            return self._interval
        return max(self._interval, min(PACE * took, longest))

    def _hung_seconds(self, now: float) -> float | None:
        began = self._began
        return now - began if began is not None and now - began > self._deadline else None

    def _tell(self, reason: str) -> bool:
        """Log the change from good to bad; whether it is one."""
        with self._telling:
            before, self._told = self._told, reason
        if before is not None:
            return False
        log.warning(
            "collector %s fails (it is asked again; what it told last is told for %.0f s): %s",
            self.name, self.kept_seconds, reason,
        )  # fmt: skip
        return True


def told(error: BaseException) -> str:
    """An error in one line without a login; of an error that is not ours only its kind."""
    if not isinstance(error, IdempotencyError):
        return f"{_kind(error)}; the log of this process says where"
    text = " ".join(str(error).split())
    return _PASSWORD.sub(r"\1***", _LOGIN.sub(r"\1***@", text))[:LONGEST_TOLD]


def _kind(error: BaseException) -> str:
    return f"unforeseen {type(error).__name__}"
