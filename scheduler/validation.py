"""Validates a fleet: every check that was asked for, on plain values."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from .capacity import Capacity
from .checks import (
    Hotspot,
    duplicates,
    expressions,
    healthy,
    hotspots,
    hotspots_of,
    overlaps,
    readable,
)
from .errors import UnknownSchedule
from .findings import CHECKS, Finding
from .health import Health, health
from .idempotency_checks import Evidence, idempotency
from .inventory import Inventory
from .model import Schedule
from .report import Report

NOTHING = Evidence()


def validate(
    inventory: Inventory,
    now: datetime,
    capacity: Capacity,
    *,
    zone: str = "UTC",
    checks: Collection[str] = tuple(CHECKS),
    evidence: Evidence = NOTHING,
    only: str | None = None,
) -> Report:
    """The report of the week from `now` (aware). `only`: the id or name of a schedule, whose
    findings alone are told. Raises UnknownSchedule for one that is not there.
    """
    subjects = () if only is None else subjects_of(inventory, only)
    active = [one for one in inventory.schedules if one.active]
    state = health(active, now, capacity=capacity.slots, zone=zone)
    hot = hotspots_of(state, active, zone)
    asked = tuple(check for check in CHECKS if check in checks)
    found = [
        one
        for check in asked
        for one in _findings(check, inventory, active, state, hot, now, zone, evidence)
    ]
    if only is not None:
        ids = {one.id for one in subjects}
        found = [one for one in found if ids & {*one.schedules} or _tells_of(one, only)]
    return Report(
        source=inventory.source,
        now=now,
        zone=zone,
        capacity=capacity,
        checks=asked,
        rows=len(inventory.schedules) + len(inventory.problems),
        health=state,
        hotspots=tuple(hot),
        findings=tuple(found),
        problems=inventory.problems,
        subjects=subjects,
        unasked=evidence.unasked if "idempotency" in asked else (),
    )


def _findings(
    check: str,
    inventory: Inventory,
    active: Sequence[Schedule],
    state: Health,
    hot: Sequence[Hotspot],
    now: datetime,
    zone: str,
    evidence: Evidence,
) -> Iterator[Finding]:
    match check:
        case "rows":
            return readable(inventory)
        case "duplicates":
            return duplicates(active)
        case "hotspots":
            return hotspots(hot, zone)
        case "overlaps":
            return overlaps(state, active, now.date())
        case "expressions":
            return expressions(active, now)
        case "idempotency":
            return idempotency(active, evidence, now.date())
        case _:
            return healthy(state)


def subjects_of(inventory: Inventory, asked: str) -> tuple[Schedule, ...]:
    """The schedule of an id, else those of a name. Raises UnknownSchedule."""
    found = [one for one in inventory.schedules if one.id == asked] or [
        one for one in inventory.schedules if one.name == asked
    ]
    if found or any(_named(one.schedule, asked) for one in inventory.problems):
        return tuple(found)
    known = {name for one in inventory.schedules for name in (one.id, one.name) if name}
    known.update(one.schedule for one in inventory.problems if one.schedule)
    near = difflib.get_close_matches(asked, sorted(known), n=3)
    raise UnknownSchedule(asked, inventory.source, tuple(near))


def _named(name: str, asked: str) -> bool:
    """A row that cannot be read is called by its name, or `id (name)`."""
    return bool(name) and (name == asked or name.startswith(f"{asked} ("))


def _tells_of(finding: Finding, asked: str) -> bool:
    return finding.code == "unreadable" and _named(finding.subject, asked)
