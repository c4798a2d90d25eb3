"""The directory that holds the slot files of one worker node, while that node runs.

Invariants: it belongs to this user and nobody else can enter it, also under a shared /tmp, where a
directory or link that someone else put there first is refused; two live workers never share one;
it is empty when a worker starts, so nothing of an earlier life is counted again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError

SETTING: Final = "idempotency_metrics_dir"
MAX_SAME_NAME: Final = 100


def default_root() -> Path:
    """The user's runtime directory, else one of the user's own under the system's temporary one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        return Path(runtime) / "idemwatch"
    return Path(tempfile.gettempdir()) / f"idemwatch-{os.geteuid()}"


class NodeDirectory:
    """A claimed, private, empty directory. `release` removes it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        self._empty()

    def release(self) -> None:
        if self._lock is None:
            return
        self._empty()
        with contextlib.suppress(OSError):  # a stranger's file keeps it; the next start empties it
            self.path.rmdir()
        self.forget()

    def forget(self) -> None:
        """Give the lock back; in a forked child, give only the child's hold on it back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _empty(self) -> None:
        for file in (*self.path.glob("*.db"), self.path / "url"):
            file.unlink(missing_ok=True)


def claim(root: Path | None, node: str) -> NodeDirectory:
    """The directory of `node` in `root`, or `node`-2 and so on while another of that name runs.

    A `root` that was named is left as it is: it may be shared. None: the user's own.
    """
    if root is None:
        root = default_root()
        private(root)
    for number in range(1, MAX_SAME_NAME + 1):
        suffix = "" if number == 1 else f"-{number}"
        path = root / f"{_file_name(node)}{suffix}"
        private(path)
        lock = _try_lock(path)
        if lock is not None:
            return NodeDirectory(path, lock)
    raise ConfigurationError(SETTING, f"{root}: {MAX_SAME_NAME} workers named {node} run already")


def private(path: Path) -> None:
    """Make `path` a directory of this user's alone, or raise ConfigurationError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(SETTING, f"cannot make {path} ({error.strerror})") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(SETTING, f"{path} is no directory; remove it or name another")
    if found.st_uid != os.geteuid():
        problem = f"{path} belongs to user id {found.st_uid}; name a directory of this user's"
        raise ConfigurationError(SETTING, problem)
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None while another process holds it."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except OSError:
        # Held by another, or removed by its last holder between our open and now.
        os.close(lock)
        return None
    os.close(lock)
    return None


def _file_name(node: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9@._-]", "_", node).lstrip(".")[:100]
    if safe == node:
        return safe
    return f"{safe}-{hashlib.blake2b(node.encode(), digest_size=4).hexdigest()}"
