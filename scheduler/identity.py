"""Which schedules are one: a hash over what they mean, not over how they are written."""

from __future__ import annotations

from typing import Final

from idemwatch.idempotency.keys import digest

from .model import Schedule

_VERSION: Final = b"1"


def schedule_hash(schedule: Schedule) -> str:
    """32 hex digits over times, zone, task, arguments, asset and client.

    `@daily`, `00 00 * * *` and `0 0 1-31 * *` have one hash, and so have two names of one schedule.
    """
    meaning = (
        type(schedule.timing).__name__,
        schedule.timing.meaning,
        schedule.zone,
        schedule.task,
        schedule.args,
        schedule.kwargs,
        schedule.asset_id,
        schedule.client_id,
    )
    return digest(_VERSION, repr(meaning).encode("utf-8", "surrogatepass"))
