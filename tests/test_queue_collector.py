"""Lengths of queues: on a real Redis, on kombu's memory broker, and as an AMQP broker answers.

No AMQP broker is started here: its answers are played by amqp's own errors and a channel that, as
a real one does, is closed by a refusal.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import amqp.exceptions  # type: ignore[import-untyped]
import pytest
import redis
from celery import Celery
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter.broker import Broker
from idemwatch.exporter.queue_collector import MOST_QUEUES, QueueCollector, queues_of
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from support.stores import wait_until


def app_on(url: str, **conf: Any) -> Celery:
    app = Celery("tests.queues", broker=url, set_as_current=False)
    app.conf.update(conf)
    return app


def lengths(broker: Broker, *queues: str) -> dict[str, float]:
    (family,) = QueueCollector(broker, queues).collect()
    assert family.name == "idemwatch_queue_messages"
    return {sample.labels["queue"]: sample.value for sample in family.samples}


def test_messages_that_wait_in_redis_are_counted(redis_url: str) -> None:
    app = app_on(redis_url)
    for _ in range(3):
        app.send_task("t.one", queue="fast")
    assert lengths(Broker(app), "fast", "slow") == {"fast": 3, "slow": 0}


def test_all_priorities_of_a_queue_are_added_up(redis_url: str) -> None:
    app = app_on(redis_url, broker_transport_options={"priority_steps": [0, 3, 6, 9]})
    for priority in (0, 3, 9, 9):
        app.send_task("t.one", queue="fast", priority=priority)
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("fast") < 4, "they stand in several lists"
    assert lengths(Broker(app), "fast") == {"fast": 4}


def test_a_prefix_of_all_keys_is_respected(redis_url: str) -> None:
    app = app_on(redis_url, broker_transport_options={"global_keyprefix": "mine:"})
    app.send_task("t.one", queue="fast")
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("mine:fast") == 1
    assert lengths(Broker(app), "fast") == {"fast": 1}
    assert lengths(Broker(app_on(redis_url)), "fast") == {"fast": 0}


def test_a_key_that_is_no_queue_is_told_and_hides_no_queue(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_on(redis_url)
    app.send_task("t.one", queue="slow")
    with redis.Redis.from_url(redis_url) as client:
        client.set("fast", "text")
    assert lengths(Broker(app), "fast", "slow") == {"slow": 1}
    assert "fast is left out" in caplog.text


def test_looking_makes_nothing(redis_url: str) -> None:
    lengths(Broker(app_on(redis_url)), "never-made")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == []


def test_looking_keeps_no_connection(new_redis: Callable[..., RedisServer]) -> None:
    url = new_redis().url
    broker = Broker(app_on(url))
    with redis.Redis.from_url(url) as client:
        before = len(client.client_list())
        for _ in range(20):
            lengths(broker, "fast", "slow")
        wait_until(lambda: len(client.client_list()) <= before)


def test_a_url_wins_over_that_of_the_app(redis_url: str) -> None:
    app = app_on("redis://127.0.0.1:1/0")
    assert lengths(Broker(app, redis_url), "fast") == {"fast": 0}


def test_the_memory_broker_is_asked_alike() -> None:
    app = app_on("memory://")
    app.send_task("t.one", queue="fast")
    assert lengths(Broker(app), "fast", "never-made") == {"fast": 1, "never-made": 0}


def test_queues_are_those_of_the_app() -> None:
    assert queues_of(app_on("memory://")) == ["celery"]
    assert queues_of(app_on("memory://", task_default_queue="mine")) == ["mine"]
    queues = {"slow": {"exchange": "slow"}, "fast": {"exchange": "fast"}}
    assert queues_of(app_on("memory://", task_queues=queues)) == ["fast", "slow"]


def test_too_many_queues_are_cut_off_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"q{number}" for number in range(MOST_QUEUES + 5)]
    (family,) = QueueCollector(Broker(app_on("memory://")), [*names, *names]).collect()
    assert [sample.labels["queue"] for sample in family.samples] == names[:MOST_QUEUES]
    assert "--queue" in caplog.text


class AmqpChannel:
    """Answers as a RabbitMQ does, with the errors of py-amqp."""

    def __init__(self, queues: dict[str, int], refusal: Exception | None) -> None:
        self._queues, self._refusal = queues, refusal
        self.is_open = True

    def queue_declare(self, queue: str, passive: bool) -> Any:
        assert passive, "it must not make a queue"
        assert self.is_open, "a closed channel was used"
        if queue not in self._queues:
            self.is_open = False
            raise self._refusal or amqp.exceptions.NotFound("no queue", (50, 10), "declare", 404)
        return types.SimpleNamespace(message_count=self._queues[queue])


class AmqpBroker:
    """A broker whose connection is to nowhere."""

    def __init__(self, queues: dict[str, int], refusal: Exception | None = None) -> None:
        self._queues, self._refusal = queues, refusal
        self.transport = types.SimpleNamespace(driver_type="amqp")
        self.channel_errors = (amqp.exceptions.ChannelError,)

    def channel(self) -> AmqpChannel:
        return AmqpChannel(self._queues, self._refusal)

    @contextmanager
    def connected(self) -> Iterator[AmqpBroker]:
        yield self


def test_a_queue_that_an_amqp_broker_does_not_have_is_empty_and_hides_no_other() -> None:
    broker = cast(Broker, AmqpBroker({"fast": 3, "slow": 4}))
    assert lengths(broker, "fast", "none", "slow") == {"fast": 3, "none": 0, "slow": 4}


def test_another_refusal_of_an_amqp_broker_is_a_failure() -> None:
    refusal = amqp.exceptions.AccessRefused("may not", (50, 10), "declare", 403)
    with pytest.raises(amqp.exceptions.AccessRefused):
        lengths(cast(Broker, AmqpBroker({}, refusal)), "fast")


@pytest.mark.parametrize(
    "url",
    ["redis://:s3cret@127.0.0.1:1/0", "amqp://user:s3cret@127.0.0.1:1//",
     "amqp://user:s3cret@127.0.0.1:1//;amqp://user:s3cret@127.0.0.1:2//"],
)  # fmt: skip
def test_a_broker_that_is_away_is_told_soon_and_without_its_password(url: str) -> None:
    broker = Broker(app_on(url))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="broker") as caught:
        lengths(broker, "fast")
    assert time.monotonic() - began < 5
    assert "s3cret" not in str(caught.value)


def test_a_wrong_password_is_told_without_it(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis(config={"requirepass": "right"})
    wrong = server.url.replace("right", "s3cret")
    with pytest.raises(StoreUnavailable, match=r"(?i)password|auth") as caught:
        lengths(Broker(app_on(wrong)), "fast")
    assert "s3cret" not in str(caught.value)


def test_a_frozen_broker_is_given_up_within_its_deadline(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    broker = Broker(app_on(server.url))
    broker.ping()
    server.freeze()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"(?i)time"):
        broker.ping()
    assert time.monotonic() - began < 9
    server.thaw()
    broker.ping()


def test_a_broker_that_kombu_does_not_know_is_an_error_at_start() -> None:
    with pytest.raises(ConfigurationError, match="--broker-url") as caught:
        Broker(app_on("carrier-pigeon://user:s3cret@host"))
    assert "s3cret" not in str(caught.value)


def test_a_transport_that_cannot_even_be_imported_is_an_error_at_start() -> None:
    """kombu's module for Kafka raises NameError where its driver is missing."""
    app = app_on("redis://127.0.0.1:1")

    def broken(*_: object, **__: object) -> None:
        raise NameError("name 's3cret' is not defined")

    app.connection_for_read = broken
    with pytest.raises(ConfigurationError, match=r"--broker-url.*NameError") as caught:
        Broker(app)
    assert "s3cret" not in str(caught.value)


def test_brokers_of_several_kinds_that_are_all_away_are_one_that_is_away() -> None:
    broker = Broker(app_on("amqp://u:s3cret@127.0.0.1:1//;redis://:s3cret@127.0.0.1:1/0"))
    with pytest.raises(StoreUnavailable) as caught:
        broker.ping()
    assert "s3cret" not in str(caught.value)
