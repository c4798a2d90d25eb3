"""Records in Redis: what was written is read again, and nothing of a stranger's is believed.

Case 17: a garbage record, a record of a newer version, a key of the wrong type.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.idempotency.errors import UnreadableRecord
from idemwatch.idempotency.record import Record, State, Waiter
from idemwatch.idempotency.wire import VERSION, decode, encode, pack_waiters, unpack_waiters
from support.stores import KEY, Subject, redis_subject, result

texts = st.text(max_size=30)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=32)
numbers = st.integers(0, 2**62)
records = st.builds(
    Record,
    state=st.sampled_from(State),
    owner=names,
    fence=numbers,
    due_us=numbers,
    created_us=numbers,
    attempt=st.integers(0, 1000),
    crashes=st.integers(0, 1000),
    authority=names,
    fingerprint=st.just("") | names,
    task_id=texts,
    endpoint=texts,
    scope=names,
    user_id=st.none() | st.text(min_size=1),
    device_id=st.none() | st.text(min_size=1),
    waiters=st.dictionaries(texts, st.builds(Waiter, names, numbers), max_size=4),
    result_type=st.just(""),
    result=st.none(),
)
results = st.tuples(st.text(min_size=1, max_size=30), st.binary(max_size=200))


@given(records, st.none() | results)
def test_a_record_is_read_as_it_was_written(record: Record, kept: tuple[str, bytes] | None) -> None:
    if kept is not None:
        record = record._replace(result_type=kept[0], result=kept[1])
    assert decode(encode(record), "redis", KEY) == record


@given(st.dictionaries(texts, st.builds(Waiter, names, numbers), min_size=1))
def test_waiters_are_read_as_they_were_written(waiters: dict[str, Waiter]) -> None:
    assert unpack_waiters(pack_waiters(waiters)) == waiters


def refused(raw: bytes) -> bool:
    """Whether bytes are refused; they are read, or refused in our own words: nothing else."""
    try:
        decode(raw, "redis", KEY)
    except UnreadableRecord:
        return True
    return False


@given(st.binary(max_size=300))
def test_garbage_is_refused(raw: bytes) -> None:
    assert refused(raw)


@given(records, st.data())
def test_a_damaged_record_is_read_or_refused(record: Record, data: st.DataObject) -> None:
    raw = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    refused(bytes(raw))
    refused(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@given(records, st.lists(st.text(" -,;%\n019aé", max_size=8), min_size=17, max_size=17))
def test_any_fields_are_read_or_refused(record: Record, fields: list[str]) -> None:
    refused(" ".join([VERSION, *fields[1:]]).encode() + b"\n")


# -- in Redis --------------------------------------------------------------------------------------

GARBAGE = {
    "text": b"locked by another library",
    "empty": b"",
    "pickle": pickle.dumps({"status": "done"}),
    "json": b'{"state": "done", "result": 1}',
    "truncated": b"iw1 owner 17",
    "binary": bytes(range(256)),
}


class Fired:
    """What unpickles itself into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def subject(redis_url: str) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield redis_subject(stack, redis_url)


def every_step_is_refused(subject: Subject, match: str) -> None:
    store = subject.store
    held = subject.hold("other")
    held = held._replace(claim=held.claim._replace(key=KEY))
    for step in (
        lambda: subject.ask(),
        lambda: store.complete(held, result()),
        lambda: store.find(KEY),
        lambda: store.put_done(held, result()),
    ):
        with pytest.raises(UnreadableRecord, match=match):
            step()


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_a_strangers_value_is_refused_and_left_as_it_is(
    subject: Subject, client: redis.Redis, raw: bytes
) -> None:
    if not raw:
        raw = b" "
    client.set(f"test:{{{KEY}}}", raw)
    every_step_is_refused(subject, "idemwatch keys forget")
    assert client.get(f"test:{{{KEY}}}") == raw


def test_a_pickle_is_never_opened(subject: Subject, client: redis.Redis, tmp_path: Path) -> None:
    client.set(f"test:{{{KEY}}}", pickle.dumps(Fired(tmp_path / "fired")))
    every_step_is_refused(subject, "cannot be read")
    assert not (tmp_path / "fired").exists()


def test_a_record_of_a_newer_version_asks_for_an_upgrade(
    subject: Subject, client: redis.Redis
) -> None:
    subject.hold()
    name = f"test:{{{KEY}}}"
    raw = client.get(name)
    assert isinstance(raw, bytes)
    client.set(name, raw.replace(b"iw1", b"iw2"))
    every_step_is_refused(subject, "version iw2.*upgrade this worker")


@pytest.mark.parametrize("command", [("RPUSH", "x"), ("HSET", "f", "x"), ("SADD", "x")])
def test_a_key_of_the_wrong_type_is_refused(
    subject: Subject, client: redis.Redis, command: tuple[str, ...]
) -> None:
    name = f"test:{{{KEY}}}"
    client.execute_command(command[0], name, *command[1:])  # type: ignore[no-untyped-call]
    kind = client.type(name)
    every_step_is_refused(subject, "another type")
    assert client.type(name) == kind


@pytest.mark.parametrize("raw", [b"garbage", b"iw2 of the future", None])
def test_what_cannot_be_read_is_removed_by_forget(
    subject: Subject, client: redis.Redis, raw: bytes | None
) -> None:
    name = f"test:{{{KEY}}}"
    if raw is None:
        client.rpush(name, "x")
    else:
        client.set(name, raw)
    assert subject.store.forget(KEY) is not None
    assert subject.ask().granted
