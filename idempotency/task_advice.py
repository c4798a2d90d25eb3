"""Decides what becomes of a task: how it is protected, or why that is left to a person.

The safe answer wins. A key never swallows work that may be meant: where two calls with the same
arguments may be two pieces of work, the key is of the one message, and only its redeliveries are
turned away. What could make calls fail is not done, but told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .policies import POLICIES, task_retry_policy
from .task_arguments import Signature, argument_findings, is_coroutine, signature_of
from .task_category import REFRESHING, category_of, words_of
from .task_classes import CELERY_TASKS, Tree, in_beat, task_class
from .task_effects import Body, body_of
from .task_findings import body_findings, own_retries
from .task_keys import Key, key_for
from .task_model import (
    STRATEGY_BASE,
    STRATEGY_DECORATOR,
    Action,
    Finding,
    Found,
    Kind,
    Level,
    Recommendation,
    Report,
)
from .task_names import Names
from .task_rules import RULES

DAILY_SECONDS: Final = 26 * 3600
"""A day and its redeliveries: what a key that names a day must live."""
POLICY_OPTIONS: Final = frozenset(task_retry_policy(next(iter(POLICIES))))
TTL_REASONS: Final = {
    "critical": "covers its retries",
    "high_priority": "covers its retries",
    "report": "the same report is not made twice a day",
    "email": "the same mail is not sent again while its retries last",
    "maintenance": "covers its retries",
}


def report_of(path: str, found: Found, names: Names, tree: Tree) -> Report:
    """All that is told of one task."""
    body, signature = body_of(found, names), signature_of(found)
    beat = in_beat(tree, found.name, found.function)
    findings = [
        *argument_findings(found, signature, names, tree),
        *body_findings(found, body, signature),
        *_of_beat(found, beat),
    ]
    advice = _recommended(found, body, signature, beat)
    action, why = _action(found, findings, advice, tree, path)
    if action is Action.ALREADY:
        findings = [one for one in findings if one.rule not in ("own-retries", "ignored-result")]
    return Report(
        path=path, name=found.name, function=found.function, line=found.line,
        column=found.column + 1, kind=found.kind, action=action, why=why, advice=advice,
        effects=tuple(body.effects), findings=tuple(sorted(findings, key=_order)),
    )  # fmt: skip


def _order(finding: Finding) -> tuple[int, int]:
    return list(Level).index(finding.level), finding.line


def _of_beat(found: Found, beat: str) -> Iterator[Finding]:
    if beat:
        level = RULES["beat-schedule"].level
        yield Finding("beat-schedule", level, f"a beat publishes it ({beat})", found.line)


# -- what is recommended ---------------------------------------------------------------------------


def _recommended(found: Found, body: Body, signature: Signature, beat: str) -> Recommendation:
    words = list(dict.fromkeys([*words_of(found.function), *words_of(found.name)]))
    category, reason = category_of(words, body)
    # A base of Celery's own is replaced; another can only be kept.
    decorator = found.kind is Kind.FUNCTION and found.base not in ("", *CELERY_TASKS)
    key = key_for(found, signature, frozenset(words), decorator=decorator)
    scope, scope_reason = _scope(body, signature, key, beat, words)
    if scope == "task":
        key = Key(key.shown, ignored=key.ignored, reasons=_without_builder(key))
    policy = POLICIES[category]
    daily = key.daily and scope != "task"
    lives = (
        "the key names a day, and a message may come after it" if daily else TTL_REASONS[category]
    )
    ttl = DAILY_SECONDS if daily else int(policy.ttl.total_seconds())
    spread = _takes_policy(found, body, decorator=decorator)
    reasons = (
        f"category {category}: {reason}",
        _strategy_reason(found, decorator=decorator),
        f"TTL: {lives}",
        scope_reason,
        _authority_reason(policy.authority, category, decorator=decorator),
        *key.reasons,
        *_retry_reason(found, body, category, spread=spread, decorator=decorator),
    )  # fmt: skip
    return Recommendation(
        category=category, strategy=STRATEGY_DECORATOR if decorator else STRATEGY_BASE,
        ttl_seconds=ttl, scope=scope, authority="postgres" if decorator else policy.authority,
        key=key.shown, builder=key.builder, key_code=key.code, ignored=key.ignored,
        policy=spread, daily=daily, reasons=reasons,
    )  # fmt: skip


def _without_builder(key: Key) -> tuple[str, ...]:
    return tuple(one for one in key.reasons if not one.startswith("its arguments"))


def _strategy_reason(found: Found, *, decorator: bool) -> str:
    if decorator:
        return (
            f"@idempotent: it has the base class {found.base}, and a task has one. It takes the "
            "settings of the environment; a duplicate that meets a running one fails with "
            "AlreadyRunning"
        )
    if found.kind is Kind.CLASS:
        return "IdempotentTask: it takes the place of Task as the base class"
    return "IdempotentTask: a task of Celery's own base class can take it"


def _authority_reason(authority: str, category: str, *, decorator: bool) -> str:
    if decorator:
        return "authority: the service decides, in PostgreSQL"
    if authority == "redis":
        return "authority redis: cheap, and at worst it is repeated after Redis has lost its data"
    return f"authority postgres: {category} work is not repeated when Redis is emptied"


def _takes_policy(found: Found, body: Body, *, decorator: bool) -> bool:
    """Whether the retries of the category can be taken: nothing of the task's own is overridden."""
    own = bool(POLICY_OPTIONS & {*found.options}) or bool(own_retries(found, body))
    return found.kind is Kind.FUNCTION and not decorator and not own


def _retry_reason(
    found: Found, body: Body, category: str, *, spread: bool, decorator: bool
) -> Iterator[str]:
    policy = POLICIES[category]
    if spread:
        yield (
            f"new: a run that fails is tried again {policy.retries} times, after "
            f"{policy.backoff_seconds} s at first"
        )
        return
    kept = own_retries(found, body) or [
        f"{name} (line {node.lineno})"
        for name, node in found.options.items()
        if name in POLICY_OPTIONS
    ]
    if kept and not decorator:
        yield f"its own options are kept, and no retries added: {', '.join(kept)}"


def _scope(
    body: Body, signature: Signature, key: Key, beat: str, words: list[str]
) -> tuple[str, str]:
    """Whether two messages with the same arguments are one piece of work, and for whom."""
    if not signature.names and not signature.variable:
        return "task", (
            "scope task: it has no arguments, so a key of them would turn away every later run; "
            "pass the day to make it global"
        )
    if beat:
        return "task", f"scope task: a beat sends it with the same arguments each time ({beat})"
    if not key.builder and not signature.has_period:
        clock = [*body.days, *body.cutoffs]
        if clock:
            where = f"{clock[0].what}, line {clock[0].line}"
            return "task", (
                f"scope task: it asks for the time itself ({where}), so the same arguments are "
                "other work later; pass the day to make it global"
            )
        if words and words[0] in REFRESHING:
            return "task", (
                f"scope task: to {words[0]} again with the same arguments may be meant; say "
                "idempotency_scope='global' if it is not"
            )
    for scope in ("user", "device"):
        one = signature.get(f"{scope}_id")
        if one is not None and one.required and not one.may_be_none:
            return scope, f"scope {scope}: each call names its {scope}_id"
    return "global", "scope global: the same arguments are the same work, whoever sends them"


# -- what becomes of it ----------------------------------------------------------------------------


def _action(
    found: Found, findings: list[Finding], advice: Recommendation, tree: Tree, path: str
) -> tuple[Action, str]:
    if found.protected_by:
        return Action.ALREADY, f"it is protected by {found.protected_by}"
    problems = [*_obstacles(found, advice), *_own_classes(found, advice, tree, path)]
    problems += [one.message for one in findings if one.level is Level.ERROR]
    return (Action.BY_HAND, "; ".join(problems)) if problems else (Action.MIGRATE, "")


def _obstacles(found: Found, advice: Recommendation) -> Iterator[str]:
    """What a tool cannot get past."""
    if is_coroutine(found):
        yield "it is async or a generator, so a call does no work yet: protect what awaits it"
    if found.method:
        yield "it is a method, and its self would be part of the key: make it a function"
    if found.spread:
        yield f"its options come from {found.spread}, which cannot be read: add base there"
    if found.kind is Kind.CLASS and found.base.endswith(".Task"):
        yield f"it inherits from {found.base}, which the app makes: name IdempotentTask there"
    elif found.kind is Kind.CLASS and found.base:
        yield f"it inherits from {found.base}: let that class inherit from IdempotentTask"
    if found.kind is Kind.CLASS and found.node.body[0].lineno == found.node.lineno:
        yield "the class stands on one line: write it on several"
    if advice.strategy == STRATEGY_DECORATOR and advice.scope == "task":
        yield (
            f"it has the base class {found.base}: let that class inherit from IdempotentTask, as "
            "@idempotent has no scope task"
        )


def _own_classes(found: Found, advice: Recommendation, tree: Tree, path: str) -> Iterator[str]:
    """Task classes whose methods a task would lose."""
    if advice.strategy == STRATEGY_DECORATOR:
        return
    own = task_class(tree, path)
    if own and found.kind is Kind.FUNCTION and not found.base:
        yield (
            f"the app has a task class of its own ({own}): let that one inherit from "
            "IdempotentTask, and its __call__ call super().__call__"
        )
    if found.function in tree.on_commit:
        yield (
            "it is sent with delay_on_commit, which is of Django's task class: give it a base "
            "class that inherits from IdempotentTask and DjangoTask"
        )
