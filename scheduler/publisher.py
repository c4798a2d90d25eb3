"""Publishes the messages of due times: each with a task id made from its schedule and due time."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Final

from idemwatch.idempotency.keys import DUE_HEADER, SCHEDULE_HEADER
from kombu.exceptions import OperationalError

from .config import canonical_json
from .errors import BrokerUnavailable
from .firing_store import Firing
from .model import Schedule

CONNECT_SECONDS: Final = 4.0
CONFIRMING: Final = ("amqp", "amqps", "pyamqp")
"""Transports that can tell that the broker has the message."""
_IDS: Final = uuid.UUID("5d5f0f6c-7f0e-5b3b-9c3f-3f2a3c8f4e11")


def task_id_of(schedule_id: object, due_at: datetime) -> str:
    """The task id of a due time: a second publish has the same."""
    return str(uuid.uuid5(_IDS, f"{schedule_id}@{_utc(due_at)}"))


def headers_of(schedule_id: object, due_at: datetime) -> dict[str, Any]:
    """What a scheduled message carries; the default key of its task covers the first two."""
    return {
        SCHEDULE_HEADER: str(schedule_id),
        DUE_HEADER: _utc(due_at),
        "celery_beat_task": True,  # as Celery's own beat marks its messages
    }


def message_of(schedule: Schedule) -> str:
    """The message of each of its due times, as JSON: task, args, kwargs and options."""
    priority = {} if schedule.priority is None else {"priority": schedule.priority}
    return (
        f'{{"task":{canonical_json(schedule.task)},"args":{schedule.args},'
        f'"kwargs":{schedule.kwargs},"options":{schedule.options},'
        f'"also":{canonical_json(priority)}}}'
    )


class Publisher:
    """One connection to the app's broker, made when first needed and again after it broke."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._producer: Any = None

    def connect(self) -> None:
        """Be connected. Raises BrokerUnavailable."""
        if self._producer is None:
            connection = self._app.connection_for_write(
                transport_options=self._options(), connect_timeout=CONNECT_SECONDS
            )
            try:
                connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
            except (OperationalError, OSError) as error:
                connection.release()
                raise BrokerUnavailable(type(error).__name__) from error
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)

    def publish(self, firing: Firing) -> None:
        """Hand the message of a firing to the broker. Raises BrokerUnavailable.

        What else it raises is the fault of the message: an option that does not exist, for example.
        """
        message, task = firing.message, self._app.tasks.get(firing.message["task"])
        options = {**message["options"], **message["also"]}
        headers = {**options.pop("headers", {}), **headers_of(firing.schedule_id, firing.due_at)}
        given = {
            **options,
            "task_id": firing.task_id,
            "headers": headers,
            "producer": self._producer,
            "retry": False,  # the next turn does, with the firing locked anew
        }
        args, kwargs = message["args"], message["kwargs"]
        try:
            if task is None:
                self._app.send_task(message["task"], args, kwargs, **given)
            else:
                task.apply_async(args, kwargs, **given)
        except self._errors() as error:
            self.close()
            raise BrokerUnavailable(type(error).__name__) from error

    def close(self) -> None:
        """Give the connection back."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.release()

    def _errors(self) -> tuple[type[Exception], ...]:
        connection = self._producer.connection
        theirs = (*connection.connection_errors, *connection.channel_errors)
        return (OperationalError, OSError, *theirs)

    def _options(self) -> dict[str, Any]:
        scheme = str(self._app.conf.broker_write_url or self._app.conf.broker_url or "amqp")
        confirms = scheme.partition(":")[0].partition("+")[0] in CONFIRMING
        return {"confirm_publish": True} if confirms else {}


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
