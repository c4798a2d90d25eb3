"""Holds a history against the guarantee: a list of breaches. Pure: asks no server and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from . import lease_checks, work_checks
from .breach import Breach
from .history import History

Check = Callable[[History], Iterable[Breach]]
CHECKS: Final[tuple[Check, ...]] = (
    lease_checks.one_holder,
    lease_checks.checks_hold,
    lease_checks.fences_grow,
    lease_checks.late_writes,
    lease_checks.stale_refused,
    lease_checks.own_claims,
    lease_checks.lost_claims_are_released,
    lease_checks.retries_are_kept,
    lease_checks.repeats_are_counted,
    lease_checks.leases_have_a_cause_to_end,
    work_checks.finished_once,
    work_checks.replays_are_right,
    work_checks.answers_are_right,
    work_checks.effects_once,
    work_checks.nothing_is_stuck,
    work_checks.cache_tells_the_truth,
    work_checks.the_broker_loses_little,
    work_checks.metrics_are_exact,
)


def breaches(history: History) -> list[Breach]:
    """All that is broken."""
    return [breach for check in CHECKS for breach in check(history)]
