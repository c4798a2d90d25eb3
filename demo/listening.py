"""A child process that listens on a port of our choice, and is asked over HTTP whether it is ready.

Invariant: once `wait` has returned it is ready, on the port that `address` names; a port that was
taken meanwhile is left for another one.
"""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from .processes import Child, ProcessFailed, free_port

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 60.0
_PORT_TRIES: Final = 10
_PORT_TAKEN: Final = "address already in use"
_ANSWER_SECONDS: Final = 5.0


class Listening:
    """Started at once, so that others can start beside it; `wait` for it before it is used.

    `command`: its words for an address. `ready`: the path that answers 200 then.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[str], Sequence[str]],
        *,
        folder: Path,
        env: Mapping[str, str],
        ready: str,
    ) -> None:
        self._name, self._command, self._ready = name, command, ready
        self._folder, self._env = folder, env
        self._launch()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}"

    def wait(self) -> None:
        """Wait until it is ready. Raises ProcessFailed."""
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                self.child.wait_until(self._answers, START_SECONDS)
            except ProcessFailed as failure:
                self.child.kill()
                if _PORT_TAKEN not in failure.log.lower() or not tries_left:
                    raise
                self.child.log.unlink()
                self._launch()
            else:
                return

    def _launch(self) -> None:
        self.address = f"{HOST}:{free_port()}"
        words = self._command(self.address)
        self.child = Child(self._name, words, folder=self._folder, env=self._env, cwd=self._folder)

    def _answers(self) -> bool:
        return answers(f"{self.url}{self._ready}")


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as reply:  # noqa: S310  ours
            return int(reply.status) == 200
    except (OSError, http.client.HTTPException):
        return False
