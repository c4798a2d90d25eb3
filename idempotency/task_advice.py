"""Decides what becomes of a task: how it is protected, or why that is left to a person.

The safe answer wins. A key never swallows work that may be meant: where two calls with the same
arguments may be two pieces of work, the key is of the one message, and only its redeliveries are
turned away. What could make calls fail is not done, but told.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from .policies import POLICIES, task_retry_policy
from .task_arguments import Signature, argument_findings, is_coroutine, signature_of
from .task_category import category_of, words_of
from .task_classes import CELERY_TASKS, Tree, fanned_out, in_beat, task_class
from .task_effects import Body, body_of
from .task_findings import body_findings, own_retries
from .task_keys import Key, key_for
from .task_model import (
    STRATEGY_BASE,
    STRATEGY_DECORATOR,
    Action,
    Effect,
    Finding,
    Found,
    Kind,
    Level,
    Recommendation,
    Report,
)
from .task_names import Names
from .task_rules import RULES
from .task_scope import Sent, scope_of
from .task_ttl import ttl_of

POLICY_OPTIONS: Final = frozenset(task_retry_policy(next(iter(POLICIES))))
OUTWARD: Final = ("mail", "http", "process")
"""Effects that no rollback takes back."""


def report_of(path: str, found: Found, names: Names, tree: Tree) -> Report:
    """All that is told of one task."""
    body, signature = body_of(found, names), signature_of(found)
    beat = in_beat(tree, found.name, found.function) or _periodic(found)
    findings = [
        *argument_findings(found, signature, names, tree),
        *body_findings(found, body, signature),
        *_of_beat(found, beat),
    ]
    sent = Sent(beat, fanned_out(tree, found.function))
    advice = _recommended(found, names, body, signature, sent)
    action, why = _action(found, findings, advice, tree, path)
    if action is Action.ALREADY:
        findings = [one for one in findings if one.rule not in ("own-retries", "ignored-result")]
    return Report(
        path=path, name=found.name, function=found.function, line=found.line,
        column=found.column + 1, kind=found.kind, action=action, why=why, advice=advice,
        effects=tuple(body.effects), findings=tuple(sorted(findings, key=_order)),
    )  # fmt: skip


def _periodic(found: Found) -> str:
    """Where the decorator itself is a beat's, as Celery had one before version 5."""
    return (
        f"its decorator, line {found.decorator.lineno}"
        if found.periodic and found.decorator
        else ""
    )


def _order(finding: Finding) -> tuple[int, int]:
    return list(Level).index(finding.level), finding.line


def _of_beat(found: Found, beat: str) -> Iterator[Finding]:
    if beat:
        level = RULES["beat-schedule"].level
        yield Finding("beat-schedule", level, f"a beat publishes it ({beat})", found.line)


# -- what is recommended ---------------------------------------------------------------------------


def _recommended(
    found: Found, names: Names, body: Body, signature: Signature, sent: Sent
) -> Recommendation:
    words = list(dict.fromkeys([*words_of(found.function), *words_of(found.name)]))
    category, reason = category_of(words, body)
    # A base of Celery's own is replaced; another can only be kept.
    decorator = found.kind is Kind.FUNCTION and found.base not in ("", *CELERY_TASKS)
    key = key_for(found, signature, frozenset(words), decorator=decorator)
    scope, scope_reason = scope_of(found, names, body, signature, key, sent, words)
    if scope == "task":
        key = Key(key.shown, ignored=key.ignored, reasons=_without_builder(key))
    policy = POLICIES[category]
    daily = key.daily and scope != "task"
    ttl, lives = ttl_of(found, body, category, daily=daily)
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
    return found.kind is Kind.FUNCTION and not decorator and not own and not _risky(body)


def _risky(body: Body) -> Effect | None:
    """What a new retry may do a second time, though it was never tried again before.

    A payment whose answer is lost is one; so is what leaves the house before another effect fails.
    """
    payment = next((one for one in body.effects if one.kind == "payment"), None)
    last = max((one.line for one in body.effects), default=0)
    return payment or next(
        (one for one in body.effects if one.kind in OUTWARD and one.line < last), None
    )


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
    risk = _risky(body)
    if risk is not None and not kept and found.kind is Kind.FUNCTION and not decorator:
        yield (
            f"no retries added: one after {risk.what} (line {risk.line}) may do that twice; put "
            "it into `with self.idempotency.once(key)`, then add task_retry_policy"
        )
    if kept and not decorator:
        yield f"its own options are kept, and no retries added: {', '.join(kept)}"


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
    if found.periodic:
        yield "periodic_task gives it a base class of its own: make it a task and a beat's entry"
    bind = found.options.get("bind")
    if bind is not None and not isinstance(bind, ast.Constant):
        yield f"bind={ast.unparse(bind)} cannot be read, nor whether it has a self: write it out"
    if found.method:
        yield "it is a method, and its self would be part of the key: make it a function"
    if found.spread:
        yield f"its options come from {found.spread}, which cannot be read: add base there"
    yield from _of_class(found)
    if advice.strategy == STRATEGY_DECORATOR:
        yield from _of_decorator(found, advice)


def _of_class(found: Found) -> Iterator[str]:
    if found.kind is Kind.CLASS and found.base.endswith(".Task"):
        yield f"it inherits from {found.base}, which the app makes: name IdempotentTask there"
    elif found.kind is Kind.CLASS and found.base:
        yield f"it inherits from {found.base}: let that class inherit from IdempotentTask"
    if found.kind is Kind.CLASS and found.node.body[0].lineno == found.node.lineno:
        yield "the class stands on one line: write it on several"


def _of_decorator(found: Found, advice: Recommendation) -> Iterator[str]:
    if found.wrapped:
        yield (
            f"it has the base class {found.base}, and decorators that @idempotent would stand "
            "within: what they undo, as a transaction, would be recorded as done"
        )
    if found.made_often:
        yield (
            f"it has the base class {found.base}, and its function is made for several tasks: "
            "@idempotent would give all of them one key. Let that class inherit from IdempotentTask"
        )
    if advice.scope == "task":
        yield (
            f"it has the base class {found.base}: let that class inherit from IdempotentTask, as "
            "@idempotent has no scope task"
        )


def _own_classes(found: Found, advice: Recommendation, tree: Tree, path: str) -> Iterator[str]:
    """Task classes whose methods a task would lose."""
    if tree.tenants and advice.scope != "task":
        yield (
            f"the tenant travels in a header ({tree.tenants}), which no key has, so that two "
            "tenants' work would be one: make it an argument"
        )
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
