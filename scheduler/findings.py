"""What a validation finds, and the rules that it goes by.

A rule has one check; its code is what reports, and those who read them, know it by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from .model import Schedule
from .place import Place


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


CHECKS: Final = {
    "rows": "rows that cannot be read",
    "duplicates": "duplicate schedules",
    "hotspots": "schedule hotspots",
    "overlaps": "schedule overlaps",
    "expressions": "doubtful expressions",
    "idempotency": "idempotency configuration",
    "health": "overall schedule health",
}
"""Every check, in the order of reports, and what it looks for."""


class Rule(NamedTuple):
    """`one`, `many`: what is found, counted; `help`: why it matters, and what to do."""

    code: str
    check: str
    severity: Severity
    one: str
    many: str
    help: str

    def counted(self, number: int) -> str:
        """`3 schedule hotspots`."""
        return f"{number:,} {self.one if number == 1 else self.many}"


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_ALL: Final = (
    Rule(
        "unreadable", "rows", _E, "row that cannot be read", "rows that cannot be read",
        "Such a row fires nothing. Correct it where it stands: the message tells what is wrong.",
    ),
    Rule(
        "doubtful_row", "rows", _W, "row that is not what it seems",
        "rows that are not what they seem",
        "It was read, but cron makes something else of it. Correct it where it stands.",
    ),
    Rule(
        "duplicate", "duplicates", _E, "duplicate schedule", "duplicate schedules",
        "Equal times, zone, task, arguments, asset and client: the same work is fired twice. Keep "
        "one; --fix keeps the oldest.",
    ),
    Rule(
        "hotspot", "hotspots", _W, "schedule hotspot", "schedule hotspots",
        "More runs at once than 70% of what the workers take: runs wait, and one that is slow "
        "delays the others. --fix --dry-run shows which to move, and where to; "
        "or give the workers more slots.",
    ),
    Rule(
        "overrunning", "overlaps", _W, "schedule that starts again before its run has ended",
        "schedules that start again before their run has ended",
        "Run it less often, make it shorter, or let it skip a start (overlap: skip). Where no "
        "run was measured and no duration_estimate_seconds is given, 60 s are assumed: give one.",
    ),
    Rule(
        "contending", "overlaps", _W, "schedule that runs while another does on the same asset",
        "schedules that run while another does on the same asset",
        "Move one of each pair: both work on one asset of one client at once.",
    ),
    Rule(
        "never", "expressions", _W, "schedule that never fires", "schedules that never fire",
        "No such day comes, as 30 February: correct the days, or delete it.",
    ),
    Rule(
        "gap", "expressions", _W, "schedule in an hour that the clock skips",
        "schedules in an hour that the clock skips",
        "It fires right after the gap, beside what is due then. Move it out of that hour, or let "
        "it run in UTC.",
    ),
    Rule(
        "fold", "expressions", _W, "schedule in an hour that the clock repeats",
        "schedules in an hour that the clock repeats",
        "Other crons fire it twice. Move it out of that hour, or let it run in UTC.",
    ),
    Rule(
        "every_minute", "expressions", _W, "schedule that fires in each minute of some hours",
        "schedules that fire in each minute of some hours",
        "A * was surely meant to be a 0: write the minute.",
    ),
    Rule(
        "uneven_step", "expressions", _I, "schedule with an uneven step",
        "schedules with uneven steps",
        "Harmless, unless equal distances are counted on: take a step that divides the field.",
    ),
    Rule(
        "many_duplicates", "idempotency", _E, "task with high duplicate rate",
        "tasks with high duplicate rate",
        "Something publishes the same work again and again: two beats, a caller that retries, or "
        "a visibility timeout that is shorter than the task. See `idemwatch keys list --task`.",
    ),
    Rule(
        "not_idempotent", "idempotency", _W, "scheduled task that is no IdempotentTask",
        "scheduled tasks that are no IdempotentTask",
        "A due time that is published twice runs twice: give it base=IdempotentTask.",
    ),
    Rule(
        "unregistered", "idempotency", _W, "scheduled task that the app does not know",
        "scheduled tasks that the app does not know",
        "Workers of this app refuse its messages. Correct the name, or import its module.",
    ),
    Rule(
        "swallowed", "idempotency", _E, "schedule whose firings have one key",
        "schedules whose firings have one key",
        "All but the first within the key's lifetime are turned away as duplicates. Let the key "
        "tell firings apart (the default key does), or set a TTL below the schedule's gap.",
    ),
    Rule(
        "no_key", "idempotency", _E, "schedule whose key cannot be computed",
        "schedules whose key cannot be computed",
        "Each of its messages fails in the worker: correct its arguments, or the key function.",
    ),
    Rule(
        "blind_overlap", "idempotency", _W, "schedule whose overlap rule sees no run",
        "schedules whose overlap rule sees no run",
        "Only the lease of an IdempotentTask tells of a live run: give it base=IdempotentTask.",
    ),
    Rule(
        "health", "health", _W, "low schedule health score", "low schedule health scores",
        "Hotspots cost 10 points each, conflicts 5, unbalanced hours 3. Begin with the hotspots.",
    ),
)  # fmt: skip
RULES: Final = {rule.code: rule for rule in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`subject`: the schedule or task that it is about, as people call it; "" for the fleet.

    `schedules`: the ids of all that are concerned, its own first.
    """

    code: str
    severity: Severity
    message: str
    subject: str = ""
    schedules: tuple[str, ...] = ()
    place: Place | None = None

    @property
    def rule(self) -> Rule:
        """What it goes against."""
        return RULES[self.code]

    @property
    def check(self) -> str:
        """The check that found it."""
        return self.rule.check

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" if self.subject else self.message


def called(one: Schedule) -> str:
    """Its id, with its name where the id does not tell it."""
    return one.id if one.name in one.id else f"{one.name} ({one.id})"


def about(
    one: Schedule,
    code: str,
    message: str,
    *,
    severity: Severity | None = None,
    others: Iterable[str] = (),
) -> Finding:
    """A finding about one schedule, with the severity of its rule unless told."""
    return Finding(
        code=code,
        severity=severity or RULES[code].severity,
        message=message,
        subject=called(one),
        schedules=(one.id, *others),
        place=one.place,
    )
