"""Every error that idemwatch raises: one root, few children, each with fields and the next step."""

from __future__ import annotations


class IdempotencyError(Exception):
    """Root of all errors of idemwatch."""


class ConfigurationError(IdempotencyError):
    """A setting, task option or file is wrong. `name` is the setting's name."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        super().__init__(f"{name}: {problem}")

    def __reduce__(self) -> tuple[object, ...]:
        problem = str(self).removeprefix(f"{self.name}: ")
        return type(self), (self.name, problem)


class InvalidKey(IdempotencyError):
    """No stable key can be computed from a call."""


class UnencodableArgument(InvalidKey):
    """An argument has no canonical form. `argument` names it, for example `items[2].price`."""

    def __init__(self, argument: str, problem: str) -> None:
        self.argument, self.problem = argument, problem
        super().__init__(
            f"argument {argument!r} cannot be part of an idempotency key: {problem}. Pass a plain "
            "value, name the arguments that matter in idempotency_key_args, or give idempotency_key"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.argument, self.problem)


class MissingScopeId(InvalidKey):
    """The scope needs an id that the call does not carry."""

    def __init__(self, scope: str, argument: str) -> None:
        self.scope, self.argument = scope, argument
        super().__init__(
            f"scope {scope!r} needs a {argument}: pass the argument {argument!r} to the task, the "
            f"header {'idempotency_' + argument!r} to apply_async, or choose another "
            "idempotency_scope"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.scope, self.argument)


class StoreUnavailable(IdempotencyError):
    """A store did not answer, or holds something that cannot be read. Nothing was decided."""

    def __init__(self, store: str, reason: str) -> None:
        self.store, self.reason = store, reason
        super().__init__(f"{store} is unavailable: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.store, self.reason)


class UnreadableRecord(StoreUnavailable):
    """A record is of a newer version, of the wrong type, or garbage: nothing is guessed."""


class SchemaMismatch(StoreUnavailable):
    """The database is not migrated, or is newer than this code."""


class _KeyedError(IdempotencyError):
    """An error about one key. Keys carry no personal data: builders hash it."""

    advice = "{key}"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(self.advice.format(key=key))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.key,)


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
