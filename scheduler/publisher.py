"""Publishes the messages of due times: each with a task id made from its schedule and due time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from celery.result import denied_join_result
from idemwatch.idempotency.keys import DUE_HEADER, SCHEDULE_HEADER
from kombu.exceptions import OperationalError

from .config import canonical_json
from .errors import BrokerUnavailable, InvalidSchedule
from .firing import Firing, utc_text
from .model import Schedule
from .rows import storable

CONNECT_SECONDS: Final = 4.0
PUBLISH_SECONDS: Final = 2.0
"""How long one message may take. The row of the last of a batch is surely locked for so long."""
CONFIRMING: Final = "py-amqp"
"""The driver that can tell that the broker has the message."""


def headers_of(schedule_id: object, due_at: datetime) -> dict[str, Any]:
    """What a scheduled message carries; the default key of its task covers the first two."""
    return {
        SCHEDULE_HEADER: str(schedule_id),
        DUE_HEADER: utc_text(due_at),
        "celery_beat_task": True,  # as Celery's own beat marks its messages
    }


def message_of(schedule: Schedule) -> str:
    """The message of each of its due times, as JSON: task, args, kwargs and options.

    Raises InvalidSchedule for a text that no database keeps, as half of a surrogate pair.
    """
    priority = {} if schedule.priority is None else {"priority": schedule.priority}
    message = (
        f'{{"task":{canonical_json(schedule.task)},"args":{schedule.args},'
        f'"kwargs":{schedule.kwargs},"options":{schedule.options},'
        f'"also":{canonical_json(priority)}}}'
    )
    if not storable(message):
        raise InvalidSchedule(schedule.label, "args", "a character of its message is none")
    return message


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

    def publish(self, firing: Firing, message: dict[str, Any], headers: dict[str, Any]) -> None:
        """Hand the message of a firing to the broker. Raises BrokerUnavailable.

        What else it raises is the fault of the message: an option that does not exist, for example.
        """
        task = self._app.tasks.get(message["task"])
        given = {
            **message["options"],
            **message["also"],
            "task_id": firing.task_id,
            "headers": headers,
            "producer": self._producer,
            "retry": False,  # the next turn does, with the firing locked anew
            **self._limits(),
        }
        args, kwargs = message["args"], message["kwargs"]
        try:
            # Nobody waits for the result here: no connection to its backend is needed.
            with denied_join_result():
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
        """Of the transport: what the app sets goes before our time-outs."""
        transport = self._app.connection_for_write().get_transport_cls()
        asked: dict[str, Any] = {}
        if transport.driver_type == "redis":
            asked = {"socket_timeout": PUBLISH_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
        elif transport.driver_name == CONFIRMING:
            asked = {"write_timeout": PUBLISH_SECONDS}
        asked |= self._app.conf.broker_transport_options or {}
        return asked | ({"confirm_publish": True} if transport.driver_name == CONFIRMING else {})

    def _limits(self) -> dict[str, Any]:
        """Of one message: a broker that is short of memory confirms nothing."""
        confirming = self._producer.connection.transport.driver_name == CONFIRMING
        return {"confirm_timeout": PUBLISH_SECONDS} if confirming else {}
