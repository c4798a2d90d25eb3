"""Task options by category, in one place."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple

from .errors import AlreadyRunning, ConfigurationError, LeaseLost, StoreUnavailable


class Policy(NamedTuple):
    """A category: how long results are kept, and how failures are retried."""

    ttl: timedelta
    retries: int
    backoff_seconds: int
    backoff_max_seconds: int
    authority: str


LATER: Final = (AlreadyRunning, LeaseLost, StoreUnavailable)
"""What a task raises that met work of another, or no store: its message comes again by itself."""
POLICIES: Final = {
    "critical": Policy(timedelta(hours=4), 5, 10, 600, "postgres"),
    "high_priority": Policy(timedelta(hours=2), 5, 10, 600, "postgres"),
    "report": Policy(timedelta(hours=24), 3, 60, 1800, "postgres"),
    "email": Policy(timedelta(hours=2), 5, 30, 900, "postgres"),
    "maintenance": Policy(timedelta(hours=12), 2, 300, 3600, "redis"),
}


def task_retry_policy(name: str, **overrides: Any) -> dict[str, Any]:
    """Options for `@app.task(base=IdempotentTask, **task_retry_policy("report"))`.

    Any exception is retried, with exponential backoff and jitter, but for those that say "later":
    what another holds, or no store decides, comes again without a try being used up. `overrides`
    win, for example
    `task_retry_policy("critical", idempotency_ttl=timedelta(hours=26))`.
    """
    policy = POLICIES.get(name)
    if policy is None:
        known = ", ".join(POLICIES)
        raise ConfigurationError("task_retry_policy", f"{name!r} is none of {known}")
    return {
        "acks_late": True,
        "reject_on_worker_lost": True,
        "autoretry_for": (Exception,),
        "dont_autoretry_for": LATER,
        "max_retries": policy.retries,
        "retry_backoff": policy.backoff_seconds,
        "retry_backoff_max": policy.backoff_max_seconds,
        "retry_jitter": True,
        "idempotency_ttl": policy.ttl,
        "idempotency_authority": policy.authority,
        **overrides,
    }
