"""Runs the doctor's checks side by side, within one deadline.

Invariant: a check that fails or hangs costs only itself. Each has a thread of its own, which is
left behind when it does not end in time; what it would still find is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from typing import NamedTuple

from idemwatch.idempotency.errors import IdempotencyError, StoreUnavailable

from .doctor_findings import NOT_CHECKED, Finding, Level, error, unchecked


class Check(NamedTuple):
    """A name, and what looks. `primary`: that a store does not answer is its own finding."""

    name: str
    look: Callable[[], Iterable[Finding]]
    primary: bool = False


def run(checks: Sequence[Check], deadline_seconds: float) -> list[Finding]:
    """The findings of all, in the order of the checks."""
    found: dict[int, list[Finding]] = {}
    deadline = time.monotonic() + deadline_seconds
    threads = []
    for number, check in enumerate(checks):
        thread = threading.Thread(
            target=_into, args=(found, number, check), name=f"doctor-{check.name}", daemon=True
        )
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    done = dict(found)
    findings = [
        one
        for number, check in enumerate(checks)
        for one in done.get(number, [_late(check, deadline_seconds)])
    ]
    told = {one.found for one in findings if one.level is Level.ERROR}
    return [_once(one, told) for one in findings]


def _once(one: Finding, told: Set[str]) -> Finding:
    """Without a reason that an error tells already."""
    reason = one.found.removeprefix(NOT_CHECKED)
    if one.level is Level.UNCHECKED and reason in told:
        return unchecked(one.check, reason.partition(":")[0])
    return one


def _into(found: dict[int, list[Finding]], number: int, check: Check) -> None:
    found[number] = looked(check)


def looked(check: Check) -> list[Finding]:
    """What a check finds, or why it could not."""
    try:
        return list(check.look())
    except StoreUnavailable as problem:
        if not check.primary:
            return [unchecked(check.name, str(problem))]
        change = f"start {problem.store}, or correct its address, user and password in the settings"
        return [error(check.name, str(problem), change)]
    except IdempotencyError as problem:
        return [error(check.name, str(problem), "correct this setting")]
    except Exception as problem:  # whatever it is, the others go on
        # Its kind alone: the text of an error that nobody foresaw may hold anything.
        kind = type(problem).__name__
        told = f"the check itself failed ({kind})"
        return [error(check.name, told, "report it, with the versions that this command shows")]


def _late(check: Check, seconds: float) -> Finding:
    change = "see what holds it up there; --deadline gives it longer"
    return error(check.name, f"no answer within {seconds:g} s", change)
