"""The idempotency core: what a worker imports.

Names are loaded when they are first used, so that `celery` starts no slower for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builders import (
        autoclose_key,
        email_notification_key,
        ppm_job_key,
        report_generation_key,
        ticket_escalation_key,
    )
    from .decorator import idempotent
    from .errors import (
        AlreadyRunning,
        ArgumentMismatch,
        AuthorityMismatch,
        ConfigurationError,
        DuplicateTask,
        IdempotencyError,
        InvalidKey,
        LeaseLost,
        LockTimeout,
        MissingScopeId,
        PoisonedKey,
        SchemaMismatch,
        StoreUnavailable,
        UnencodableArgument,
        UnreadableRecord,
    )
    from .policies import task_retry_policy
    from .service import IdempotencyService
    from .settings import Settings
    from .task import IdempotentTask

_MODULES = {
    "builders": (
        *("autoclose_key", "email_notification_key", "ppm_job_key", "report_generation_key"),
        "ticket_escalation_key",
    ),
    "decorator": ("idempotent",),
    "errors": (
        *("AlreadyRunning", "ArgumentMismatch", "AuthorityMismatch", "ConfigurationError"),
        *("DuplicateTask", "IdempotencyError", "InvalidKey", "LeaseLost", "LockTimeout"),
        *("MissingScopeId", "PoisonedKey", "SchemaMismatch", "StoreUnavailable"),
        *("UnencodableArgument", "UnreadableRecord"),
    ),
    "policies": ("task_retry_policy",),
    "service": ("IdempotencyService",),
    "settings": ("Settings",),
    "task": ("IdempotentTask",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AlreadyRunning",
    "ArgumentMismatch",
    "AuthorityMismatch",
    "ConfigurationError",
    "DuplicateTask",
    "IdempotencyError",
    "IdempotencyService",
    "IdempotentTask",
    "InvalidKey",
    "LeaseLost",
    "LockTimeout",
    "MissingScopeId",
    "PoisonedKey",
    "SchemaMismatch",
    "Settings",
    "StoreUnavailable",
    "UnencodableArgument",
    "UnreadableRecord",
    "autoclose_key",
    "email_notification_key",
    "idempotent",
    "ppm_job_key",
    "report_generation_key",
    "task_retry_policy",
    "ticket_escalation_key",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
