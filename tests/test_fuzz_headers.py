"""Messages of any kind: whatever their headers hold, they end in a way that is known.

A message is done, waits, is turned away, or fails by itself with an error of ours. None is sent
around for ever because a value of its own is refused by a store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import Ignore, Reject
from hypothesis import example, given
from hypothesis import strategies as st
from idemwatch.idempotency.errors import IdempotencyError
from support.fuzz import fuzz, odd, odd_text
from support.publishers import Desk

HEADERS = (
    "idempotency_user_id", "idempotency_device_id", "idempotency_schedule", "idempotency_due_at",
    "idemwatch_wait", "idemwatch_unavailable",
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {}, {"idempotency_scope": "user"}, {"idempotency_scope": "device"},
    {"idempotency_scope": "task"}, {"idempotency_on_running": "keep_last"},
    {"idempotency_on_running": "skip"}, {"idempotency_at_publish": True},
]  # fmt: skip


@pytest.fixture(params=["redis", "postgres"])
def desk(request: pytest.FixtureRequest, redis_url: str, database_url: str) -> Iterator[Desk]:
    made = Desk(redis_url, {
        "idempotency_authority": request.param,
        "idempotency_redis_url": redis_url,
        "idempotency_database_url": database_url,
    })  # fmt: skip
    made.tasks = [made.made(**{"idempotency_at_publish": False, **one}) for one in OPTIONS]  # type: ignore[attr-defined]
    yield made
    made.close()


def deliver(desk: Desk, task: Any, fields: dict[str, Any], *args: Any) -> str:
    """What becomes of a message, as the worker of Celery hands it over."""
    task.push_request(called_directly=False, delivery_info={}, **fields)
    try:
        task(*args)
    except (IdempotencyError, Ignore, Reject) as end:
        return type(end).__name__
    finally:
        task.pop_request()
    return "done"


headers = st.dictionaries(st.sampled_from(HEADERS), odd, max_size=4)
ids = st.just("") | odd_text | st.uuids().map(str)


@fuzz(60)
@given(st.integers(0, len(OPTIONS) - 1), headers, ids, odd, st.booleans())
@example(0, {}, "a\0b", 0, True)
@example(0, {}, "id", "1 2 3", True)
@example(0, {}, "id", 2**40, True)
def test_any_header_ends_in_a_known_way(
    desk: Desk, which: int, given_headers: dict[str, Any], task_id: str, retries: Any, own: bool
) -> None:
    task = desk.tasks[which]  # type: ignore[attr-defined]
    fields: dict[str, Any] = {"id": task_id, "retries": retries, "headers": given_headers}
    if own:  # Celery 5 lays them on the request itself, too
        fields |= given_headers
    end = deliver(desk, task, fields, uuid4().int)
    assert end in {"done", "InvalidKey", "MissingScopeId"}, end
