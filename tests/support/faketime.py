"""Wrong clocks for workers, by libfaketime: the wall clock alone, as on a machine whose NTP failed.

The offset stands in a file, so that a test can move the clock while a task runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDERS = "lib/*/faketime/libfaketimeMT.so.1"


def library() -> Path:
    """libfaketime of Debian."""
    found = sorted(Path("/usr").glob(FOLDERS))
    assert found, f"/usr/{FOLDERS} is missing: apt-get install libfaketime"
    return found[0]


@dataclass(frozen=True)
class WrongClock:
    """The clock of the processes that are started with `env`."""

    file: Path

    def set(self, offset_seconds: float) -> None:
        """So far from the right time, from now on."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{offset_seconds:+.3f}\n")
        written.replace(self.file)

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to read this clock."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
