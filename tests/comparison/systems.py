"""The systems that are compared: what each is, with which settings, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOLD_SECONDS: Final = 15
"""How long a peer's lock lasts: longer than any task here but those of one case that says so."""
SHORT_HOLD_SECONDS: Final = 3
"""The lock of the tasks whose locks are outlived."""
LEASE_SECONDS: Final = 2


@dataclass(frozen=True)
class System:
    """One column. `package`: its distribution; `at_publish`: whether it looks only when a task is
    published."""

    name: str
    package: str
    settings: str
    promises: str
    docs: str
    at_publish: bool = False
    ours: bool = False


POSTGRES: Final = System(
    "idemwatch (PostgreSQL decides)",
    "idemwatch",
    f"`base=IdempotentTask`, authority `postgres` (the default) with its cache in Redis, a lease of"
    f" {LEASE_SECONDS} s (30 by default), which is renewed while the task runs",
    "Claims in the worker, and keeps the result until its TTL ends.",
    "guarantees.md",
    ours=True,
)
REDIS: Final = System(
    "idemwatch (Redis decides)",
    "idemwatch",
    "the same with authority `redis`; PostgreSQL only for `transaction()`",
    "The same, while Redis keeps its data.",
    "guarantees.md",
    ours=True,
)
ONCE: Final = System(
    "celery-once",
    "celery-once",
    f"`base=QueueOnce`, `unlock_before_run` False, `graceful` False (a caller is told),"
    f" `timeout` {HOLD_SECONDS} s (an hour by default), `keys` where a case has a key",
    "Guards publishing: the same task is not queued again before it has ended. It does not claim"
    " to look at what the broker delivers, nor to remember what has ended.",
    "https://github.com/cameronmaske/celery-once",
    at_publish=True,
)
SINGLETON: Final = System(
    "celery-singleton",
    "celery-singleton",
    f"`base=Singleton`, `lock_expiry` {HOLD_SECONDS} s (none by default), `raise_on_duplicate`"
    " False (a caller gets the first one's result), `unique_on` where a case has a key",
    "Guards publishing: one instance of a task is queued or running at a time. It does not claim"
    " to look at what the broker delivers, nor to remember what has ended.",
    "https://github.com/steinitzu/celery-singleton",
    at_publish=True,
)
POWERTOOLS: Final = System(
    "Powertools",
    "aws-lambda-powertools",
    f"`idempotent_function` around the task's body with `CachePersistenceLayer`, records for an"
    f" hour, a context that leaves an execution {HOLD_SECONDS} s; the arguments bound to their"
    " names are the data; the task is retried each second while another runs and when the records"
    " cannot be reached; payload validation in the case that is about it",
    "Made for Lambda functions, which have no worker to kill and a time limit that is known: a"
    " function runs once for an event within a time, and a duplicate gets its result.",
    "https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/",
)
PLAIN: Final = System(
    "plain Celery",
    "celery",
    "no guard at all; it shows that a case makes trouble",
    "Promises nothing of the kind: with late acknowledgement, a task is run at least once.",
    "https://docs.celeryq.dev/en/stable/userguide/tasks.html",
)

SYSTEMS: Final = (POSTGRES, REDIS, ONCE, SINGLETON, POWERTOOLS, PLAIN)
BY_NAME: Final = {system.name: system for system in SYSTEMS}
