"""How long the key of a task lives: it must outlast the period it names, and the task's retries."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

from .policies import POLICIES
from .settings import MAX_TTL
from .task_effects import Body
from .task_model import Found

DAILY_SECONDS: Final = 26 * 3600
"""A day and its redeliveries: what a key that names a day must live."""
RETRY_DELAY: Final = 180
"""Seconds between attempts, where Celery is told nothing else."""
TTL_REASONS: Final = {
    "critical": "covers its retries",
    "high_priority": "covers its retries",
    "report": "the same report is not made twice a day",
    "email": "the same mail is not sent again while its retries last",
    "maintenance": "covers its retries",
}


def ttl_of(found: Found, body: Body, category: str, *, daily: bool) -> tuple[int, str]:
    """Seconds, and why: the category's time, unless the task's own retries last longer."""
    usual = int(POLICIES[category].ttl.total_seconds())
    told = [found.options, *_retries(body)]
    if any(_is_endless(one) for one in told):
        return usual, "max_retries=None, and no TTL covers retries without end: give it a number"
    counts = [_number(one, "max_retries") for one in told]
    delays = [_number(one, name) for one in told for name in ("default_retry_delay", "countdown")]
    count = max([one for one in counts if one is not None], default=3 if told[1:] else 0)
    lasting = count * max([one for one in delays if one is not None], default=RETRY_DELAY)
    if lasting > max(usual, DAILY_SECONDS * daily):
        ttl = min(-(-(lasting + usual) // 3600) * 3600, int(MAX_TTL.total_seconds()))
        return ttl, f"its own {count} retries last {-(-lasting // 3600)} h"
    if daily:
        return DAILY_SECONDS, "the key names a day, and a message may come after it"
    return usual, TTL_REASONS[category]


def _retries(body: Body) -> list[Mapping[str, ast.expr]]:
    """The arguments of `self.retry(...)`."""
    return [
        {one.arg: one.value for one in node.keywords if one.arg}
        for function in body.functions
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "retry"
    ]


def _is_endless(options: Mapping[str, ast.expr]) -> bool:
    node = options.get("max_retries")
    return isinstance(node, ast.Constant) and node.value is None


def _number(options: Mapping[str, ast.expr], name: str) -> int | None:
    """An option that is a number as it is written."""
    node = options.get(name)
    value = node.value if isinstance(node, ast.Constant) else None
    return int(value) if isinstance(value, int | float) else None
