"""Every threshold, once. Imports nothing, and may be imported from anywhere."""

from __future__ import annotations

from typing import Final

HIT_RATE: Final = 0.05
"""Duplicates per check over which somebody is paged."""
HEALTH: Final = 70
"""Schedule health score under which somebody is told."""
HOTSPOTS: Final = 3
"""Half hours over `HOT` from which somebody is told."""
HOT: Final = 0.70
"""Load over which a half hour is a hotspot."""
BUSY: Final = 0.50
"""Load over which an hour is unbalanced."""
QUIET: Final = 0.30
"""Load up to which an hour is well distributed."""
HEALTH_ERROR: Final = 60
"""Score under which `validate-schedules` reports an error."""
HEALTH_WARNING: Final = 75
"""Score under which `validate-schedules` reports a warning."""
DUPLICATES_PER_HOUR: Final = 10
"""Duplicates of one task in an hour over which `validate-schedules` reports an error."""
CAPACITY: Final = 14
"""Slots that are assumed where no worker and no setting tells: then 12 runs are a load of 85%."""
