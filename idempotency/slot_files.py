"""The memory-mapped file of one slot: key -> number, written by one process, read by another.

Invariant: neither a full disk nor a file that is created, grown or removed at this very moment
raises while counting or scraping.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

log = logging.getLogger(__name__)

_STEP: Final = 1 << 16
_UNREADABLE: Final = (OSError, RuntimeError, ValueError, struct.error)


class SlotFile(MmapedDict):
    """A slot's memory-mapped file. Its blocks are reserved before they are written.

    A write to a mapped page that the disk has no room for is a SIGBUS, which would kill the worker;
    so a full disk must show as an OSError before.
    """

    def __init__(self, path: Path) -> None:
        _reserve(path, mmap.PAGESIZE)
        super().__init__(str(path))  # type: ignore[no-untyped-call]
        self._full = False

    def put(self, key: str, amount: float) -> None:
        try:
            self.write_value(key, amount, 0.0)  # type: ignore[no-untyped-call]
        except OSError as error:
            if not self._full:
                log.error("metrics of this process are incomplete: %s (%s)", self._fname, error)
            self._full = True

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + 40
        if self._full:
            raise OSError("no room was left before")
        _reserve(Path(self._fname), needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _reserve(path: Path, size: int) -> None:
    """Allocate `size` bytes on disk. The file grows in whole steps, so most calls do nothing."""
    if not hasattr(os, "posix_fallocate"):
        return
    wanted = (size + _STEP - 1) // _STEP * _STEP
    with path.open("ab") as file:
        if os.fstat(file.fileno()).st_blocks * 512 < wanted:
            os.posix_fallocate(file.fileno(), 0, wanted)


def open_slot(path: Path) -> SlotFile:
    """The slot's file, with what its former holders counted."""
    try:
        return SlotFile(path)
    except (RuntimeError, ValueError, struct.error) as error:
        log.error("metrics file %s is damaged, its slot starts at 0 again: %s", path, error)
        path.unlink(missing_ok=True)
        return SlotFile(path)


def read_slot(path: Path) -> list[tuple[str, float]]:
    """The values of a slot's file, which may be created, grown or removed at this very moment."""
    for attempt in (1, 2, 3):
        try:
            entries = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
            return [(key, amount) for key, amount, _, _ in entries]
        except _UNREADABLE as error:
            if attempt == 3 and path.exists() and path.stat().st_size:
                log.warning("metrics file %s cannot be read: %s", path, error)
    return []
