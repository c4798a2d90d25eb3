"""The history of one piece of work as sentences, and what explains that it was repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .simulate_history import OK, Execution, History, Killed, Kind
from .simulate_judge import Fate, Judged

POINTS: Final = {
    "before": "before its effect",
    "after": "after its effect, before that was recorded",
    "idle": "while it was idle",
}
_SHORT_ID: Final = 8


def story(history: History, work: str) -> list[tuple[float, str]]:
    """What happened, and when, in seconds since publishing began."""
    told = [*_deliveries(history, work), *_runs(history, work), *_effects(history, work)]
    return [(round(at, 3), what) for at, what in sorted(told, key=lambda event: event[0])]


def explained_by(history: History, one: Judged) -> str | None:
    """Why an effect was repeated, where a death or a lost lease did it; None without a reason."""
    if one.fate is Fate.VANISHED:
        return "explained: a killed worker took its message along, before the broker knew of it"
    if one.fate is not Fate.AFTER_DEATH:
        return None
    runs = [run for run in history.executions if run.work == one.work]
    reasons = [_reason(history, run) for run in runs]
    found = [reason for reason in reasons if reason is not None]
    return f"explained: {'; '.join(found)}" if found else None


def verdict(history: History, one: Judged) -> str:
    """What there is to say of a piece of work after its history."""
    explained = explained_by(history, one)
    if explained is not None:
        return explained
    if one.fate is Fate.FAILED:
        return "the task itself raised that error, and no retry of it is left"
    if one.fate is Fate.LOST:
        return "no message for it is left, and no death explains that"
    if one.kind is Kind.TRANSACTION and not one.ran_twice:
        return "a death led to it: in one transaction with its record it would have happened once"
    return "no death explains it"


def _reason(history: History, run: Execution) -> str | None:
    death = history.death_of(run)
    if death is not None:
        return f"{_who(death)} was killed at {death.at:.2f} s"
    return f"the lease of {run.process.worker} was lost" if run.lease_lost else None


def _deliveries(history: History, work: str) -> Iterator[tuple[float, str]]:
    for one in history.deliveries:
        if one.work == work:
            again = ", delivered once more by the broker" if one.redelivered else ""
            where = f"{one.process.worker} (process {one.process.pid})"
            yield one.at, f"message {one.task_id[:_SHORT_ID]} reaches {where}{again}"


def _runs(history: History, work: str) -> Iterator[tuple[float, str]]:
    for run in history.executions:
        if run.work != work:
            continue
        yield run.began, f"process {run.process.pid} begins it"
        death = history.death_of(run)
        if run.ended is not None and run.outcome == OK:
            yield run.ended, f"process {run.process.pid} comes to its end"
        elif run.ended is not None:
            yield run.ended, f"process {run.process.pid} gives up: {run.outcome}"
        if death is not None:
            yield death.at, f"{_who(death)} is killed {_where(death, work)}"


def _effects(history: History, work: str) -> Iterator[tuple[float, str]]:
    process = {run.number: run.process.pid for run in history.executions}
    for effect in history.effects:
        if effect.work == work:
            verb = "is refused by the target" if effect.refused else "happens"
            yield effect.at, f"the effect of process {process.get(effect.execution)} {verb}"


def _who(death: Killed) -> str:
    return f"worker {death.worker}" if death.pid is None else f"process {death.pid}"


def _where(death: Killed, work: str) -> str:
    """A worker takes along what it runs beside."""
    return POINTS[death.point] if death.work == work else "by what it ran beside"
