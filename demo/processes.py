"""Child processes of the demo and of the tests.

Invariant: a child and its folder do not outlive us, however we end. Each child has a session of
its own, so that a Ctrl-C at the terminal reaches only us; a guardian (a few lines of shell, in yet
another session) reads a pipe that we hold, and when that closes, ends the child and removes its
folder. PR_SET_PDEATHSIG would not do: it fires when the thread that started the child ends, and
is forgotten when the child changes its user.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.errors import IdempotencyError

POLL_SECONDS: Final = 0.02
_TAIL_BYTES: Final = 4000
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Below the range that the kernel gives to outgoing connections: there, a client that connects
# again and again to a closed port may meet itself, and then holds the port.
_PORTS: Final = range(15000, 32000)
# QUIT is PostgreSQL's immediate shutdown, which ends its children too.
_GUARDIAN: Final = """
read -r _
kill -s CONT -- "-$1"; kill -QUIT "$1"; tries=0
while kill -0 "$1" && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL -- "-$1"
rm -rf -- "$2"
"""


class ProcessFailed(IdempotencyError):
    """A child process did not start, or ended early. `log` is the end of what it wrote."""

    def __init__(self, name: str, problem: str, log: str) -> None:
        self.name, self.problem, self.log = name, problem, log
        super().__init__(f"{name} {problem}; its log ends with:\n{log or '(nothing)'}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.problem, self.log)


class Child:
    """A running child process; its output goes to `log`, and it ends with us, and so does `folder`.

    The folder is removed only if we die: an orderly end leaves that to the caller.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._guardian: subprocess.Popen[bytes] | None = None
        try:
            with self.log.open("ab") as output, uninterrupted():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                    **popen,
                )
                self.pid = self._process.pid
                self._guardian = _start_guardian(self.pid, folder)
        except BaseException:  # a signal that was held back: the caller gets no child to end
            self.kill()
            raise

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it; None while the process runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The end of the log."""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the process to end; False when it has not."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_until(
        self, condition: Callable[[], bool], deadline_seconds: float, what: str = "it was ready"
    ) -> None:
        """Ask again and again; raise ProcessFailed if the process ends first, or the time does."""
        deadline = time.monotonic() + deadline_seconds
        while not condition():
            if self.wait(POLL_SECONDS):
                problem = f"ended (exit code {self.exit_code}) before {what}"
                raise ProcessFailed(self.name, problem, self.log_tail())
            if time.monotonic() > deadline:
                problem = f"ran for {deadline_seconds:g} s before {what}"
                raise ProcessFailed(self.name, problem, self.log_tail())

    def send(self, number: signal.Signals) -> None:
        """Signal the process alone; nothing if it has ended."""
        self._process.send_signal(number)

    def send_all(self, number: signal.Signals) -> None:
        """Signal the process, what it started, and what that started."""
        for pid in (self.pid, *descendants(self.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline_seconds: float = 30) -> None:
        """End in order: signal `number`, wait, and kill what is then still there."""
        self.send_all(signal.SIGCONT)
        self.send(number)
        self.wait(deadline_seconds)
        self.kill()

    def kill(self) -> None:
        """End at once, with all that the process started."""
        guardian = self._guardian
        if guardian is None or guardian.poll() is not None:
            return  # never started, or ended before: the pid may be another's by now
        pids = descendants(self.pid) if self.running() else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        guardian.kill()
        guardian.communicate()


class ChildServer:
    """What our servers have in common: one child process, that is harmed by its pid."""

    _child: Child | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().pid

    @property
    def log(self) -> str:
        """The end of the server's log."""
        return self._running().log_tail()

    def kill(self) -> None:
        """SIGKILL: the port is closed until `restart`."""
        self._running().kill()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers until `thaw`."""
        self._running().send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send(signal.SIGCONT)

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"this {type(self).__name__} was stopped, or never started")
        return self._child


def _start_guardian(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN, "guardian", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back the signals that end us, so that what is made within is also written down."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    held: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in _ENDING:
        signal.signal(number, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signalled in held:
            signal.raise_signal(signalled)


def free_port() -> int:
    """A loopback port that was free a moment ago; who binds it must be ready to lose the race."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port found from {_PORTS.start} to {_PORTS.stop}")


def descendants(pid: int) -> list[int]:
    """All processes that `pid` started, and those that they started, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended while we looked
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])
