"""Which category of policies.py a task belongs to, by its name and by what it does."""

from __future__ import annotations

import re
from typing import Final

from .task_effects import Body

MAINTENANCE: Final = frozenset(
    (
        *("cleanup", "clean", "purge", "prune", "expire", "archive", "vacuum", "warm", "rotate"),
        *("backup", "heartbeat", "ping", "housekeeping", "flush", "trim", "compact", "gc"),
    )
)
EMAIL: Final = frozenset(
    (
        *("mail", "email", "emails", "mails", "sms", "notify", "notification", "notifications"),
        *("reminder", "reminders", "newsletter", "digest", "remind"),
    )
)
REPORT: Final = frozenset(
    ("report", "reports", "export", "exports", "pdf", "csv", "statement", "statements", "summary")
)
CRITICAL: Final = frozenset(
    (
        *("close", "autoclose", "escalate", "escalation", "ppm", "payment", "payments", "pay"),
        *("charge", "refund", "invoice", "invoices", "billing", "payout", "transfer", "withdraw"),
        *("alert", "alarm", "capture", "order", "checkout", "settle"),
    )
)
REFRESHING: Final = frozenset(
    (
        *("sync", "synchronize", "refresh", "update", "recalculate", "recompute", "rebuild"),
        *("reindex", "index", "invalidate", "poll", "check", "fetch", "pull", "scan", "warm"),
        *("touch", "reconcile", "calculate", "compute", "collect", "monitor", "process", "crawl"),
        *("dispatch", "scrape", "import", "load", "drain", "consume", "handle", "deploy", "run"),
        *("execute", "ingest", "download", "discover", "watch", "evaluate", "measure", "clear"),
    )
)
"""Verbs of work that is done anew each time something has changed: its name begins or ends so."""
REFRESHING_ANYWHERE: Final = frozenset(
    (
        *("sync", "resync", "synchronize", "refresh", "recalculate", "recompute", "rebuild"),
        *("reindex", "poll", "polling", "heartbeat", "ping", "healthcheck", "reconcile"),
    )
)
"""Those that say so wherever they stand."""
COUNTING: Final = frozenset(
    (
        *("increment", "incr", "decrement", "decr", "bump", "count", "counter", "append", "add"),
        *("credit", "debit", "deposit", "withdraw", "topup", "toggle", "resend", "retry", "rerun"),
        *("restart", "rotate", "log", "track", "tick", "record", "push"),
        *("set", "put", "upsert", "enable", "disable", "activate", "deactivate"),
    )
)
"""Verbs of work that is meant each time, two of the same are two: its name begins so."""
COUNTING_ANYWHERE: Final = frozenset(
    (
        *("increment", "incr", "decrement", "counter", "toggle", "resend", "rerun", "restart"),
        *("event", "events", "click", "clicks", "visit", "visits", "login", "logout", "hit"),
        *("hits", "pageview", "impression", "metric", "metrics", "audit", "otp", "telemetry"),
    )
)
PERIODIC: Final = frozenset(
    (
        *("daily", "nightly", "weekly", "monthly", "hourly", "yearly", "annual", "quarterly"),
        *("periodic", "recurring", "morning", "evening", "midnight", "cron"),
    )
)
"""Words of work that each period has anew."""


def words_of(name: str) -> list[str]:
    """The words of a task's name: `billing.tasks.autoCloseJobs` is auto, close, jobs."""
    last = name.rsplit(".", 1)[-1]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def category_of(words: list[str], body: Body) -> tuple[str, str]:
    """The category, and why."""
    kinds = {one.kind for one in body.effects}
    if "payment" in kinds:
        return "critical", _told(body, "payment", "it moves money")
    if words and words[0] in MAINTENANCE:
        return "maintenance", f"its name begins with {words[0]}"
    for category, known in (("email", EMAIL), ("report", REPORT), ("critical", CRITICAL)):
        word = next((one for one in words if one in known), "")
        if word:
            return category, f"its name says {word}"
    if kinds - {"named"} == {"mail"}:
        return "email", _told(body, "mail", "all that it does is send mail")
    word = next((one for one in words if one in MAINTENANCE), "")
    if word:
        return "maintenance", f"its name says {word}"
    if not kinds and body.unread:
        first = body.unread[0]
        return "high_priority", f"it calls code that was not read ({first.what}, line {first.line})"
    if not kinds:
        return "maintenance", "no effect was seen, so a repetition costs only time"
    first = body.effects[0]
    return "high_priority", f"it has effects ({first.what}, line {first.line})"


def _told(body: Body, kind: str, text: str) -> str:
    first = next(one for one in body.effects if one.kind == kind)
    return f"{text} ({first.what}, line {first.line})"
