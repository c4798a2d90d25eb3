"""A message that a killed worker took along is told apart from one that is still somewhere."""

from __future__ import annotations

import json

import pytest
import redis
from idemwatch.demo.simulate_broker import Broker, Traffic
from idemwatch.demo.simulate_redirect import QUEUE


def message(tag: str, task_id: str) -> str:
    """As kombu puts it into the queue."""
    return json.dumps(
        {
            "body": "W1tdXQ==",
            "headers": {"lang": "py", "id": task_id, "root_id": task_id},
            "properties": {"delivery_tag": tag},
        }
    )


def put(client: redis.Redis, tag: str, task_id: str) -> None:
    """Publish."""
    client.lpush(QUEUE, message(tag, task_id))


def note(client: redis.Redis, tag: str) -> None:
    """A worker has it."""
    client.hset("unacked", tag, "[]")


def test_only_a_message_that_was_taken_and_not_noted_has_vanished(redis_url: str) -> None:
    broker = Broker(redis_url)
    try:
        with redis.Redis.from_url(redis_url) as client:
            for number in (1, 2):
                put(client, f"tag-{number}", f"id-{number}")
            assert broker.messages_left() == 2
            assert client.brpop([QUEUE]) is not None
            note(client, "tag-1")
            assert client.brpop([QUEUE]) is not None
            assert broker.messages_left() == 1
            assert broker.vanished() == {"id-2"}
    finally:
        broker.close()


def test_a_message_that_came_back_and_was_taken_along_then_has_vanished(redis_url: str) -> None:
    broker = Broker(redis_url)
    try:
        with redis.Redis.from_url(redis_url) as client:
            put(client, "tag", "id")
            note(client, "tag")
            client.rpush(QUEUE, message("tag", "id"))  # restored, under the tag that it has
            client.delete("unacked", QUEUE)
            assert broker.vanished() == {"id"}
    finally:
        broker.close()


@pytest.mark.parametrize("line", ["", "OK", "+OK", "1.0 [3", '1.0 [0 a:1] "GET" "x"', "\x00\xff"])
def test_other_lines_say_nothing(line: str) -> None:
    traffic = Traffic(0)
    traffic.read(line)
    assert traffic.vanished() == set()


def test_other_databases_say_nothing() -> None:
    traffic = Traffic(0)
    quoted = message("tag", "id").replace('"', '\\"')
    traffic.read(f'1.5 [1 127.0.0.1:5] "LPUSH" "celery" "{quoted}"')
    assert traffic.vanished() == set()
    traffic.read(f'1.5 [0 127.0.0.1:5] "LPUSH" "celery" "{quoted}"')
    assert traffic.vanished() == {"id"}
