"""Every error that idemwatch raises: one root, few children, each with fields and the next step."""

from __future__ import annotations


class IdempotencyError(Exception):
    """Root of all errors of idemwatch.

    `args` are the arguments of the constructor, and the sentence is made of them: so an error
    survives pickle and Celery's result backend, which build it again from `args`.
    """


class ConfigurationError(IdempotencyError):
    """A setting, task option or file is wrong. `name` is the setting's name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class InvalidKey(IdempotencyError):
    """No stable key can be computed from a call."""


class UnencodableArgument(InvalidKey):
    """An argument has no canonical form. `argument` names it, for example `items[2].price`."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument, self.problem = argument, problem

    def __str__(self) -> str:
        return (
            f"argument {self.argument!r} cannot be part of an idempotency key: {self.problem}. "
            "Pass a plain value, or leave it out with idempotency_ignore_args"
        )


class MissingScopeId(InvalidKey):
    """The scope needs an id that the call does not carry."""

    def __init__(self, scope: str, argument: str) -> None:
        super().__init__(scope, argument)
        self.scope, self.argument = scope, argument

    def __str__(self) -> str:
        return (
            f"scope {self.scope!r} needs a {self.argument}: pass the argument {self.argument!r} to "
            f"the task, the header 'idempotency_{self.argument}' to apply_async, or choose another "
            "idempotency_scope"
        )


class StoreUnavailable(IdempotencyError):
    """A store did not answer, or holds something that cannot be read. Nothing was decided."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store, self.reason = store, reason

    def __str__(self) -> str:
        return f"{self.store} is unavailable: {self.reason}"


class StoreLeftOut(StoreUnavailable):
    """The store was not asked: it failed a moment ago, and its circuit breaker is open."""

    def __init__(self, store: str, reason: str = "it did not answer a moment ago") -> None:
        super().__init__(store, reason)


class UnreadableRecord(StoreUnavailable):
    """A record is of a newer version, of the wrong type, or garbage: nothing is guessed."""


class SchemaMismatch(StoreUnavailable):
    """The database is not migrated, or is newer than this code."""


class _KeyedError(IdempotencyError):
    """An error about one key. Keys carry no personal data: builders hash it."""

    advice = "{key}"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return self.advice.format(key=self.key)


class AuthorityMismatch(_KeyedError):
    """The record was decided by another authority."""

    advice = (
        "{key} has a record of another authority. One key has one authority: drain the queue "
        "before changing idempotency_authority, or run `idemwatch keys forget`"
    )


class ArgumentMismatch(_KeyedError):
    """The key was used before with other arguments. Nothing was run."""

    advice = (
        "{key} was used before with other arguments, so nothing was run. Put what differs into "
        "the key, or name it in idempotency_ignore_args"
    )


class PoisonedKey(_KeyedError):
    """Every attempt ended with its worker dead. Nothing was run."""

    advice = (
        "{key} is poisoned: each attempt ended with its worker dead. Find the cause, then run "
        "`idemwatch keys forget {key}`"
    )


class DuplicateTask(_KeyedError):
    """on_duplicate="raise": the work is finished already."""

    advice = "{key} is finished already, and the task says on_duplicate='raise'"


class AlreadyRunning(_KeyedError):
    """Another execution holds the key."""

    advice = "{key} is held by another execution; try again later"


class LeaseLost(_KeyedError):
    """The lease ran out and a successor may hold the key. Stop: effects are no longer ours."""

    advice = "the lease on {key} is lost and a successor may hold it: stop, and undo what you can"


class LockTimeout(_KeyedError):
    """The lock was not free within the time given."""

    advice = "lock {key} was not free within the time given"
