"""What `idemwatch validate-schedules` ends with."""

from __future__ import annotations

from typing import Final

PASSED: Final = 0
WARNINGS: Final = 1
ERRORS: Final = 2
COULD_NOT_RUN: Final = 3
INTERRUPTED: Final = 130
