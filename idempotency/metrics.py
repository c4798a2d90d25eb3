"""The metrics that a worker counts itself: their names, labels and buckets, and cached children.

Invariants: no label holds a key, task id, argument, user, pid or host; at most `TASK_CAP` task
names become labels, the rest count under `__other__`; every outcome of an announced task is there
at 0, or `rate()` would miss its first event. `.labels()` costs several times an `.inc()`, so the
hot path takes its children from the functions below, which are one dict lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from prometheus_client.metrics import MetricWrapperBase

from .slots import REGISTRY, SlotCounter, SlotGauge, SlotHistogram

__all__ = ["OTHER", "REGISTRY", "SERVICE", "TASK_CAP", "announce", "announce_process"]

TASK_CAP: Final = 200
OTHER: Final = "__other__"
SERVICE: Final = "service"
"""The task label of checks that are made outside of any task."""

OUTCOMES: Final = (
    "granted",
    "taken_over",
    "duplicate",
    "running",
    "mismatch",
    "poisoned",
    "unavailable",
    "bypassed",
)
RESULTS: Final = ("stored", "too_large", "unencodable", "stale")
REASONS: Final = ("failure", "retry", "ignored", "replaced")
STORES: Final = ("redis", "postgres")
OPERATIONS: Final = ("claim", "complete", "park", "release", "check", "renew", "lock")
PUBLISHES: Final = ("published", "answered", "unavailable")
SKIP_REASONS: Final = ("away", "refused")
LOCK_RESULTS: Final = ("acquired", "timeout", "unavailable")

STORE_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
DELAY_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
WAIT_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TASK_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

CLAIMS: Final = SlotCounter(
    "idemwatch_claims_total", "Checks of a key, by what was answered", ("task", "scope", "outcome")
)
COMPLETIONS: Final = SlotCounter(
    "idemwatch_completions_total", "Executions that finished, by what became of the result",
    ("task", "result"),
)  # fmt: skip
RELEASES: Final = SlotCounter(
    "idemwatch_releases_total", "Claims given back without a result", ("task", "reason")
)
PUBLICATIONS: Final = SlotCounter(
    "idemwatch_publishes_total",
    "Calls of a task with idempotency_at_publish, by what its publisher did: it published, "
    "answered with the first message, or published because no store answered",
    ("task", "outcome"),
)
SUPERSEDED: Final = SlotCounter(
    "idemwatch_superseded_total",
    'Messages of a task with on_running="keep_last" that a newer one took the place of',
    ("task",),
)
STORE_SECONDS: Final = SlotHistogram(
    "idemwatch_store_seconds", "Time of one operation of a store", ("store", "operation"),
    buckets=STORE_BUCKETS,
)  # fmt: skip
STORE_ERRORS: Final = SlotCounter(
    "idemwatch_store_errors_total", "Operations that a store failed", ("store", "operation")
)
CACHE_SKIPS: Final = SlotCounter(
    "idemwatch_cache_skips_total",
    "Checks that went to PostgreSQL without asking Redis",
    ("reason",),
)
CIRCUIT_OPEN: Final = SlotGauge(
    "idemwatch_circuit_open", "1 while a store is left out after errors", ("store",), merge="max"
)
LEASE_LOST: Final = SlotCounter(
    "idemwatch_lease_lost_total", "Executions that lost their lease while they ran", ("task",)
)
UNPROTECTED_RUNS: Final = SlotCounter(
    "idemwatch_unprotected_runs_total", "Executions without a claim, no store answered", ("task",)
)
HEARTBEAT_DELAY: Final = SlotHistogram(
    "idemwatch_heartbeat_delay_seconds", "How late lease renewals ran", buckets=DELAY_BUCKETS
)
LOCK_WAIT: Final = SlotHistogram(
    "idemwatch_lock_wait_seconds", "Time waited for a lock", ("result",), buckets=WAIT_BUCKETS
)
TASK_SECONDS: Final = SlotHistogram(
    "idemwatch_task_seconds", "Run time of granted executions", ("task",), buckets=TASK_BUCKETS
)
WRITEBEHIND_PENDING: Final = SlotGauge(
    "idemwatch_writebehind_pending", "Batches on their way to PostgreSQL", merge="sum"
)
WRITEBEHIND_DROPPED: Final = SlotCounter(
    "idemwatch_writebehind_dropped_total", "Batches that never reached PostgreSQL"
)
SERIES_DROPPED: Final = SlotCounter(
    "idemwatch_series_dropped_total", "Look-ups of a task over the cap, see __other__", ("metric",)
)
BUILD_INFO: Final = SlotGauge(
    "idemwatch_build_info", "1, with the versions that run", ("version", "python", "celery"),
    merge="max",
)  # fmt: skip
ENABLED: Final = SlotGauge(
    "idemwatch_enabled", "0 for a task whose protection is turned off", ("task",), merge="max"
)
"""Only tasks under the cap have a series: `__other__` could not tell which of them is off."""

M = TypeVar("M", bound=MetricWrapperBase)
_tasks: set[str] = {SERVICE, OTHER}


def admit(task: str) -> bool:
    """Whether `task` may be a label; the first `TASK_CAP` names may."""
    if task in _tasks:
        return True
    if len(_tasks) < TASK_CAP + 2:  # `service` and `__other__` are not counted
        _tasks.add(task)
    return task in _tasks


class _Children(Generic[M]):
    """The children of one family by their label values; the first label is a task if `capped`."""

    def __init__(self, family: M, *, capped: bool) -> None:
        self._family = family
        self._capped = capped
        self._known: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        child = self._known.get(labels)
        return self._make(labels) if child is None else child

    def _make(self, labels: tuple[str, ...]) -> M:
        if self._capped and not admit(labels[0]):
            # Not remembered under its own name: names without end would fill the memory.
            SERIES_DROPPED.labels(_name(self._family)).inc()
            return self(OTHER, *labels[1:])
        return self._known.setdefault(labels, self._family.labels(*labels))


def _name(family: MetricWrapperBase) -> str:
    return str(family._name) + ("_total" if isinstance(family, SlotCounter) else "")


def _by_task(family: M) -> _Children[M]:
    return _Children(family, capped=True)


def _by_kind(family: M) -> _Children[M]:
    return _Children(family, capped=False)


claims = cast(Callable[[str, str, str], SlotCounter], _by_task(CLAIMS))
completions = cast(Callable[[str, str], SlotCounter], _by_task(COMPLETIONS))
releases = cast(Callable[[str, str], SlotCounter], _by_task(RELEASES))
publishes = cast(Callable[[str, str], SlotCounter], _by_task(PUBLICATIONS))
superseded = cast(Callable[[str], SlotCounter], _by_task(SUPERSEDED))
lease_lost = cast(Callable[[str], SlotCounter], _by_task(LEASE_LOST))
unprotected_runs = cast(Callable[[str], SlotCounter], _by_task(UNPROTECTED_RUNS))
task_seconds = cast(Callable[[str], SlotHistogram], _by_task(TASK_SECONDS))
store_seconds = cast(Callable[[str, str], SlotHistogram], _by_kind(STORE_SECONDS))
store_errors = cast(Callable[[str, str], SlotCounter], _by_kind(STORE_ERRORS))
cache_skips = cast(Callable[[str], SlotCounter], _by_kind(CACHE_SKIPS))
lock_wait = cast(Callable[[str], SlotHistogram], _by_kind(LOCK_WAIT))
circuit_open = cast(Callable[[str], SlotGauge], _by_kind(CIRCUIT_OPEN))


def announce(task: str, scope: str, *, enabled: bool = True) -> None:
    """Make every series of a registered task visible at 0."""
    for outcome in OUTCOMES:
        claims(task, scope, outcome)
    for result in RESULTS:
        completions(task, result)
    for reason in REASONS:
        releases(task, reason)
    for by_task in (lease_lost, unprotected_runs):
        by_task(task)
    task_seconds(task)
    if admit(task):
        ENABLED.labels(task).set(float(enabled))


def announce_publishes(task: str) -> None:
    """The same for what only a task with idempotency_at_publish has."""
    for outcome in PUBLISHES:
        publishes(task, outcome)


def announce_process() -> None:
    """Make the series that no task owns visible at 0."""
    for store in STORES:
        circuit_open(store)
        for operation in OPERATIONS:
            store_errors(store, operation)
    for reason in SKIP_REASONS:
        cache_skips(reason)
    for result in LOCK_RESULTS:
        lock_wait(result)
    by_task = (CLAIMS, COMPLETIONS, RELEASES, LEASE_LOST, UNPROTECTED_RUNS, TASK_SECONDS)
    for family in (*by_task, PUBLICATIONS, SUPERSEDED):
        SERIES_DROPPED.labels(_name(family))


def build_info(version: str, python: str, celery: str) -> None:
    """Say which versions run, in the process that is scraped."""
    BUILD_INFO.labels(version, python, celery).set(1.0)
