"""The load of a fleet by running every single run, minute by minute: an oracle for load.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from idemwatch.scheduler.clock import zone_of
from idemwatch.scheduler.load import WEEK, Counts
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import occurrences

MINUTE = timedelta(minutes=1)


def simulated(schedules: Sequence[Schedule], start: datetime) -> Counts:
    """Each run by itself, minute by minute; shape (10080,)."""
    counts = np.zeros(WEEK)
    end = start + WEEK * MINUTE
    for one in schedules:
        began = start - one.minutes * MINUTE - timedelta(seconds=1)
        for moment in occurrences(one.timing, zone_of(one.zone), began):
            if moment >= end:
                break
            at = (moment - start) // MINUTE
            counts[max(0, at) : max(0, at + one.minutes)] += 1
    return counts
