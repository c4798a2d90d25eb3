"""The tasks' part of `idemwatch doctor`: options that make a sentence of the guarantee void, and
times that do not fit together. Pure: facts in, findings out.

Invariant: what is wrong in the same way of many tasks is one finding, which names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from .doctor_findings import Finding, Level, error, info, listed, ok, span, warning
from .doctor_postgres_store import Runs
from .doctor_task_facts import AppFacts, TaskFacts


class Rule(NamedTuple):
    """What may be wrong of a task."""

    applies: Callable[[TaskFacts, AppFacts], bool]
    level: Level
    found: str
    change: str


def _protected(task: TaskFacts) -> bool:
    return task.idempotent and task.enabled and not task.problem


RULES: Final[Sequence[Rule]] = (
    Rule(
        lambda t, _: _protected(t) and not t.acks_late, Level.WARNING,
        "acks_late is off: the message of a killed worker is gone, its work is never done",
        "leave acks_late as IdempotentTask has it (True)",
    ),
    Rule(
        lambda t, _: _protected(t) and t.acks_late and not t.reject_on_worker_lost, Level.WARNING,
        "reject_on_worker_lost is off: the message of a killed child is acknowledged, its work is "
        "never done",
        "leave reject_on_worker_lost as IdempotentTask has it (True)",
    ),
    Rule(
        lambda t, _: _protected(t) and not t.acks_on_failure, Level.INFO,
        "task_acks_on_failure_or_timeout is off: a message whose run failed is rejected, and gone "
        "unless the broker has a dead letter queue",
        "turn it on, unless such a queue is looked after",
    ),
    Rule(
        lambda t, _: _protected(t) and t.ignore_result and t.on_duplicate == "replay", Level.INFO,
        "ignore_result with on_duplicate='replay': nobody gets the result that is replayed",
        "nothing, unless callers or chords wait for it",
    ),
    Rule(
        lambda t, a: _protected(t) and a.visibility is not None and t.ttl < a.visibility,
        Level.WARNING,
        "idempotency_ttl is shorter than the broker's visibility timeout: a copy that is delivered "
        "again may find the record expired, and the work is repeated",
        "a TTL of twice the visibility timeout or more",
    ),
    Rule(
        lambda t, _: _protected(t) and t.retry_span > t.ttl, Level.WARNING,
        "idempotency_ttl is shorter than all retries take: a duplicate that was retried as long "
        "finds the record expired",
        "a longer idempotency_ttl, or fewer or quicker retries",
    ),
    Rule(
        lambda t, _: _protected(t) and t.time_limit is not None and t.lease > t.time_limit,
        Level.WARNING,
        "the lease is longer than the hard time limit: a killed worker holds its key longer than "
        "the work could take",
        "a shorter idempotency_lease; it is renewed while the task runs",
    ),
    Rule(
        lambda t, _: _protected(t) and None not in (t.max_hold, t.time_limit)
        and (t.max_hold or 0) < (t.time_limit or 0),
        Level.WARNING,
        "idempotency_max_hold is shorter than the hard time limit: the lease may end under a run "
        "that goes on, and another begins beside it",
        "leave idempotency_max_hold out: it then is the time limit",
    ),
    Rule(
        lambda t, a: a.visibility is not None and t.longest_delay > a.visibility, Level.WARNING,
        "a retry waits longer than the visibility timeout: its message is delivered again while it "
        "waits, and copies multiply",
        "a larger visibility_timeout, or a smaller retry_backoff_max",
    ),
    Rule(
        lambda t, _: t.idempotent and not t.enabled, Level.WARNING,
        "idempotency_enabled is off: duplicates are run",
        "turn it on again",
    ),
)  # fmt: skip


def task_findings(app: AppFacts) -> Iterator[Finding]:
    """Findings about the tasks of an app."""
    if not app.tasks:
        yield warning("tasks", "the app has no task", "name the app as its workers do (-A)")
        return
    for task in app.tasks:
        if task.problem:
            yield error("tasks", f"{task.name}: {task.problem}", "correct this option")
    found = list(_by_rule(app))
    yield from found
    yield from _plain(app)
    if app.always_eager:
        told = "task_always_eager is on: apply_async runs tasks in the caller, without a broker"
        yield warning("tasks", told, "turn it off, but for unit tests")
    protected = [one for one in app.tasks if _protected(one)]
    if protected and not found:
        yield ok("tasks", f"{len(protected)} idempotent: {listed([t.name for t in protected])}")


def _by_rule(app: AppFacts) -> Iterator[Finding]:
    for rule in RULES:
        names = [task.name for task in app.tasks if rule.applies(task, app)]
        if names:
            yield Finding("tasks", rule.level, f"{listed(names)}: {rule.found}", rule.change)


def _plain(app: AppFacts) -> Iterator[Finding]:
    names = [task.name for task in app.tasks if not task.idempotent]
    if names:
        told = f"{len(names)} of {len(app.tasks)} tasks are not idempotent: {listed(names)}"
        yield info("tasks", told, "`idemwatch migrate-tasks --analyze` tells how they become so")


def visibility_findings(app: AppFacts, runs: Mapping[str, Runs]) -> Iterator[Finding]:
    """The broker's visibility timeout beside what tasks take, by limit and by what is known."""
    if app.visibility is None:
        name = app.transport or "this broker"
        yield ok("visibility", f"{name} has no visibility timeout that messages would outlive")
        return
    late = [one for one in app.tasks if one.acks_late]  # others are acknowledged before they run
    limits = {one.name: _longest(one, runs.get(one.name)) for one in late}
    over = {name: s for name, s in limits.items() if s > app.visibility}
    yield from _over(app, over)
    yield from _prefetched(app, runs)
    if not over:
        yield _within(app, limits)


def _longest(task: TaskFacts, runs: Runs | None) -> float:
    """By its limit, else by the longest of its last runs."""
    return task.time_limit or (runs.longest if runs else 0.0)


def _over(app: AppFacts, over: Mapping[str, float]) -> Iterator[Finding]:
    visibility = app.visibility or 0.0
    longest = max(over.values(), default=0.0)
    change = (
        f"broker_transport_options = {{'visibility_timeout': {round(2 * longest)}}}, or a smaller "
        "time limit"
    )
    by_name = {one.name: one for one in app.tasks}
    for idempotent in (False, True):
        names = [n for n in over if by_name[n].idempotent is idempotent]
        if not names:
            continue
        told = (
            f"{listed(names)} may take {span(max(over[n] for n in names))}, longer than the "
            f"visibility timeout of {span(visibility)}: the message is delivered again while it "
            "runs"
        )
        if idempotent:
            yield warning("visibility", f"{told}, and the copies wait beside it", change)
        else:
            yield error("visibility", f"{told}, and the work is done twice", change)


def _prefetched(app: AppFacts, runs: Mapping[str, Runs]) -> Iterator[Finding]:
    """What a worker fetches ahead waits unacknowledged behind the work in hand."""
    late = {one.name for one in app.tasks if one.acks_late}
    waits = {n: app.prefetch * one.p95 for n, one in runs.items() if n in late}
    names = [n for n, seconds in waits.items() if app.prefetch > 1 and seconds > app.visibility]  # type: ignore[operator]
    if names:
        told = (
            f"worker_prefetch_multiplier is {app.prefetch}: behind {listed(names)} a message that "
            f"was fetched ahead may wait {span(max(waits[n] for n in names))}, longer than the "
            "visibility timeout, and is delivered again"
        )
        yield warning("visibility", told, "worker_prefetch_multiplier = 1 on those queues' workers")


def _within(app: AppFacts, limits: Mapping[str, float]) -> Finding:
    visibility = span(app.visibility or 0.0)
    known = {name: seconds for name, seconds in limits.items() if seconds}
    whose = "set" if app.visibility_given else "the transport's default"
    if not known:
        told = f"visibility timeout {visibility} ({whose}); no task has a time limit or known runs"
        return info("visibility", told, "give tasks a time_limit below it")
    name = max(known, key=lambda one: known[one])
    told = f"{name}, the longest, takes at most {span(known[name])} of {visibility} ({whose})"
    return ok("visibility", told)


def result_finding(app: AppFacts) -> Finding:
    """Whether results are kept anywhere."""
    if app.stores_results:
        return ok("results", "a result backend is set")
    told = "no result backend: callers cannot wait, and chords do not work; duplicates are turned "
    return info("results", told + "away all the same")
