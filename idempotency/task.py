"""IdempotentTask: the base class that makes a Celery task do its work once.

@app.task(base=IdempotentTask, bind=True, idempotency_ttl=timedelta(hours=26))
def auto_close_job(self, job_id, day): ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from celery import Task
from celery.exceptions import Reject, Retry
from celery.signals import worker_process_shutdown, worker_shutdown

from . import at_start as _at_start  # noqa: F401  connects the check at worker start
from . import metrics
from .app_settings import settings_of
from .engine import close_engines, engine_for
from .errors import IdempotencyError
from .execution import Execution
from .heartbeat import Lease
from .keys import FIRING_HEADERS, CallKey, firing_of
from .options import KEEP_LAST, TaskOptions, given_options, resolve, with_limits
from .service import IdempotencyService
from .settings import Settings

log = logging.getLogger(__name__)


class IdempotentTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task that claims its key before it runs. Options are in the README."""

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    _given: ClassVar[dict[str, Any]] = {}
    _resolved: tuple[Settings, TaskOptions] | None = None

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Check the options as soon as the task has its app. Raises ConfigurationError."""
        super().on_bound(app)
        cls._given = given_options(cls.name, _own_attributes(cls))
        if cls._given.get("at_publish"):
            from .publishing_task import make_publishing

            make_publishing(cls)
        for option, void in _VOID_WITHOUT.items():
            if not getattr(cls, option):
                log.warning("task %s turns %s off: %s", cls.name, option, void)

    @property
    def idempotency_options(self) -> TaskOptions:
        """The options in force, from the task and from the app's settings."""
        settings = settings_of(self.app)
        if self._resolved is None or self._resolved[0] is not settings:
            options = resolve(self.name, self._called(), self._given, settings)
            self._resolved = settings, with_limits(options, self.app.conf)
        return self._resolved[1]

    def _called(self) -> Callable[..., Any]:
        """What has the parameters of one call."""
        run: Any = getattr(self, "_orig_run", self.run)
        return run  # type: ignore[no-any-return]

    @property
    def idempotency(self) -> IdempotencyService:
        """The service: `once`, `transaction`, `lock`, `check_duplicate`, `store_result`."""
        return IdempotencyService(settings_of(self.app))

    @property
    def claim(self) -> Lease:
        """The lease of this execution: `key`, `fence`, `check()`."""
        execution = self._execution()
        if execution is None or execution.lease is None:
            raise IdempotencyError(f"{self.name} holds no claim here: it was called directly")
        return execution.lease

    def idempotency_key_of(self, *args: Any, **kwargs: Any) -> CallKey:
        """The key that a worker would compute for `apply_async(args, kwargs)`."""
        return self.idempotency_call_key(args, kwargs)

    def idempotency_call_key(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str = "",
        headers: Mapping[str, Any] | None = None,
    ) -> CallKey:
        """The key that a worker would compute for a message with these headers.

        Raises InvalidKey, or TypeError for a call that does not fit.
        """
        from kombu.serialization import dumps, loads

        serializer = self.serializer or self.app.conf.task_serializer or "json"
        content_type, encoding, data = dumps([list(args), dict(kwargs or {})], serializer)
        sent_args, sent_kwargs = loads(data, content_type, encoding, accept={content_type})
        given = dict(headers or {})
        return self.idempotency_options.rule.call_key(
            self,
            sent_args,
            sent_kwargs,
            task_id=task_id,
            ids={name: given.get(f"idempotency_{name}") for name in ("user_id", "device_id")},
            firing=firing_of(*(str(given.get(name) or "") for name in FIRING_HEADERS)),
        )

    def announce_metrics(self) -> None:
        """Make every series of this task visible at 0."""
        options = self.idempotency_options
        metrics.announce(self.name, options.rule.scope, enabled=options.enabled)
        if options.at_publish:
            metrics.announce_publishes(self.name)
        if options.on_running == KEEP_LAST:
            metrics.superseded(self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        # A task that calls itself inside a worker is not called_directly: the mark tells.
        direct = request.called_directly or hasattr(request, "idempotency_execution")
        if direct or not self.idempotency_options.enabled:
            return super().__call__(*args, **kwargs)
        request.idempotency_execution = None
        engine = engine_for(settings_of(self.app))
        execution = Execution(self, engine, self.idempotency_options, args, kwargs)
        request.idempotency_execution = execution
        return execution.run()

    def _execution(self) -> Execution | None:
        return getattr(self.request, "idempotency_execution", None)

    def retry(  # type: ignore[no-untyped-def]
        self,
        args=None,
        kwargs=None,
        exc=None,
        throw=True,
        eta=None,
        countdown=None,
        max_retries=None,
        **options,
    ) -> Any:
        """As Celery's; the key is kept for the next attempt before that is published."""
        execution = self._execution()
        if execution is None:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        execution.retry_delay = self._retry_delay(eta, countdown)
        try:
            retry = super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        except Retry:
            execution.retried()
            raise
        except Reject as error:  # not published: Celery would drop the message
            execution.unpark("ignored")
            raise Reject(error.reason, requeue=True) from error
        except BaseException:
            execution.unpark("failure")
            raise
        finally:
            execution.retry_delay = None
        execution.retried()
        return retry

    def signature_from_request(  # type: ignore[no-untyped-def]
        self, request=None, args=None, kwargs=None, queue=None, **options
    ) -> Any:
        """As Celery's; that of a retry has the arguments that the key is kept for."""
        execution = self._execution()
        if execution is not None and execution.retry_delay is not None:
            execution.park(args, kwargs, execution.retry_delay)
        return super().signature_from_request(request, args, kwargs, queue, **options)

    def _retry_delay(self, eta: datetime | None, countdown: float | None) -> timedelta:
        if eta is not None:
            now = datetime.now(UTC) if eta.tzinfo else datetime.now(UTC).replace(tzinfo=None)
            return max(timedelta(0), eta - now)
        delay = self.default_retry_delay if countdown is None else countdown
        return max(timedelta(0), timedelta(seconds=float(delay)))

    def replace(self, sig: Any) -> Any:
        """As Celery's; the claim is released first, since the replacement may have its key."""
        execution = self._execution()
        if execution is not None:
            execution.release("replaced")
        return super().replace(sig)


_VOID_WITHOUT = {
    "acks_late": (
        'void is "Work is never lost by being taken for a duplicate": the message of a killed '
        "worker is gone"
    ),
    "reject_on_worker_lost": (
        'void is "An attempt that died or lost its lease is repeated": the message of a killed '
        "child is acknowledged"
    ),
}


def _own_attributes(cls: type) -> dict[str, Any]:
    """The attributes that the task and its bases give, without what this class defines."""
    attributes: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base not in IdempotentTask.__mro__:
            attributes.update(vars(base))
    return attributes


def _end_of_process(**_: Any) -> None:
    close_engines()


worker_process_shutdown.connect(_end_of_process, weak=False)
worker_shutdown.connect(_end_of_process, weak=False)
