"""How many messages wait in the broker's queues.

Redis keeps a list for each priority, and kombu adds them up; an AMQP broker is asked by a passive
declaration. Invariant: a queue that is not there has 0 messages, and is not made by the look at it;
one whose key is something else is left out, and costs no other queue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .broker import Broker
from .labels import label

log = logging.getLogger(__name__)

MOST_QUEUES: Final = 100


class QueueCollector:
    """The length of each of `queues`."""

    name = "queues"

    def __init__(self, broker: Broker, queues: Sequence[str]) -> None:
        self._broker = broker
        self._queues = tuple(dict.fromkeys(queues))[:MOST_QUEUES]
        if len(self._queues) < len(set(queues)):
            log.warning(
                "%s queues are too many: the first %s are counted; choose others with --queue",
                len(set(queues)), MOST_QUEUES,
            )  # fmt: skip

    def collect(self) -> Sequence[Metric]:
        family = GaugeMetricFamily(
            "idemwatch_queue_messages", "Messages that wait in a queue", labels=["queue"]
        )
        with self._broker.connected() as connection:
            for queue, length in _lengths(connection, self._queues):
                family.add_metric([label(queue)], length)
        return (family,)

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        """It keeps no connection."""


def queues_of(app: Any) -> list[str]:
    """The queues that the app's workers consume; at least its default queue."""
    return sorted(app.amqp.queues) or [app.conf.task_default_queue]


def _lengths(connection: Any, queues: Sequence[str]) -> Iterator[tuple[str, int]]:
    # Over Redis a declaration writes nothing, and kombu's search for a queue, which a passive one
    # makes, forgets global_keyprefix and the like.
    passive = connection.transport.driver_type != "redis"
    channel = connection.channel()
    for queue in queues:
        if not getattr(channel, "is_open", True):  # an AMQP broker closes one that it refused
            channel = connection.channel()
        try:
            yield queue, int(channel.queue_declare(queue, passive=passive).message_count)
        except connection.channel_errors as error:
            if _is_not_found(error):
                yield queue, 0
            elif "WRONGTYPE" in str(error):
                log.warning("%s is left out: the key of that name is no queue (%s)", queue, error)
            else:
                raise


def _is_not_found(error: Any) -> bool:
    return str(getattr(error, "reply_code", None) or getattr(error, "code", "")) == "404"
