"""Records that no worker wrote, but that parse: who meets one answers, or refuses in our words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from idemwatch.idempotency.encoding import encode_arguments
from idemwatch.idempotency.errors import IdempotencyError, UnencodableArgument, UnreadableRecord
from idemwatch.idempotency.record import Claim, State, Wait, judge
from idemwatch.idempotency.results import SAFE, decode_result
from idemwatch.idempotency.succession import judge_last
from idemwatch.idempotency.wire import decode
from support.commands import invoke
from support.fuzz import fuzz, odd

NUMBERS = st.sampled_from(["0", "-1", "1", "1700000000000000", "9" * 19, "9" * 40, "9" * 4000])
TEXTS = st.sampled_from(["-", "a", "%00", "%ff", "%ED%A0%80", "redis", "postgres", "x" * 300])
WAITERS = st.sampled_from(
    ["-", "a,t,1", "a,t@9,99", "%00,@1,0", "a,t," + "9" * 400, "a,done@" + "9" * 300 + ",0"]
)
HEADS = st.tuples(
    st.just("iw1"), TEXTS, NUMBERS, st.sampled_from([*State]), NUMBERS, NUMBERS, NUMBERS, NUMBERS,
    TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, WAITERS,
    st.sampled_from(["-", *SAFE]),
).map(" ".join)  # fmt: skip
RAW = st.tuples(HEADS, st.binary(max_size=30)).map(
    lambda parts: parts[0].encode() + b"\n" + parts[1]
)
NOW = 1_700_000_000_000_000
BIG = {
    "fields": b"iw1" + b" -" * 2_000_000,
    "percents": b"iw1 o 1 running 1 1 0 0 redis - " + b"%41" * 1_000_000 + b" e g - - - -\n",
    "waiters": b"iw1 o 1 running 1 1 0 0 redis - t e g - - " + b"a,t,1;" * 300_000 + b" -\n",
    "digits": b"iw1 o " + b"9" * 4_000_000 + b" running 1 1 0 0 redis - t e g - - - -\n",
    "version": b"iw" + b"9" * 4_000_000,
    "results": b"iw1 o 1 done 1 1 0 0 redis - t e g - - - application/json\n" + b"[" * 4_000_000,
}


@fuzz(300)
@given(RAW, st.sampled_from(["", "t", "a"]), st.booleans())
def test_a_claim_that_meets_one_is_answered(raw: bytes, task_id: str, waits: bool) -> None:
    claim = Claim("k", "o", "redis", task_id=task_id, wait=Wait("t", "t@9") if waits else None)
    with suppress(IdempotencyError):
        record = decode(raw, "redis", "k")
        for decide in (judge, judge_last):
            with suppress(IdempotencyError):
                decide(record, claim, NOW)
        if record.result is not None:
            decode_result(record.result, record.result_type, "k")


@pytest.mark.parametrize("name", BIG)
def test_a_big_one_is_read_or_refused_in_time_that_grows_with_its_size_alone(name: str) -> None:
    began = time.monotonic()
    with suppress(UnreadableRecord):
        record = decode(BIG[name], "redis", "k")
        if record.result is not None:
            decode_result(record.result, record.result_type, "k")
    assert time.monotonic() - began < 5


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


FORGED = b"iw1 - 0 running %s %s 0 0 - - - - - - - - -\n"


@fuzz(8)
@given(raw=RAW)
@example(raw=FORGED % (b"0", b"9" * 19))
@example(raw=FORGED % (b"-" + b"9" * 40, b"9" * 40))
def test_commands_show_list_and_forget_one(client: redis.Redis, redis_url: str, raw: bytes) -> None:
    client.set("idemwatch:{k}", raw)
    for words in (("list",), ("show", "k"), ("forget", "--yes", "k")):
        done = invoke("keys", *words, "--redis-url", redis_url)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, raw)
        assert done.exit_code in (0, 1), (words, done.output)


ROW = """
UPDATE idempotency_record SET state = %s, fence = %s, lease_until = %s::timestamptz,
       created_at = %s::timestamptz, expires_at = %s::timestamptz, waiters = %s, result_type = %s,
       result = %s, authority = 'postgres' WHERE key = 'idemwatch:k'
"""
INSERT = """
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, expires_at)
VALUES ('idemwatch:k', 'e', 'global', '', 'postgres', 'running', 'o', 't', 0, 1, now(), now())
ON CONFLICT DO NOTHING
"""
TIMES = st.sampled_from(["-infinity", "infinity", "4713-01-01 BC", "294276-12-31", "now", "epoch"])


@fuzz(15)
@given(
    state=st.sampled_from([*State]), fence=st.integers(-(2**63), 2**63 - 1),
    times=st.tuples(TIMES, TIMES, TIMES),
    waiters=st.sampled_from(["", "x", ",", ";;", "a,t,1", "a,t,x", "a,t," + "9" * 5000]),
    kind=st.none() | st.sampled_from([*SAFE, "pickle"]), data=st.none() | st.binary(max_size=20),
)  # fmt: skip
def test_a_row_of_any_values_is_met_shown_and_forgotten(
    database_url: str, state: State, fence: int, times: tuple[str, str, str], waiters: str,
    kind: str | None, data: bytes | None,
) -> None:  # fmt: skip
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(INSERT)
        with suppress(psycopg.errors.CheckViolation):
            connection.execute(ROW, (str(state), fence, *times, waiters, kind, data))
    for words in (("list",), ("show", "k"), ("forget", "--yes", "k")):
        done = invoke("keys", *words, "--database-url", database_url)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        assert done.exit_code in (0, 1), (words, done.output)


@fuzz(150)
@given(odd, odd)
def test_two_different_values_never_have_one_encoding(one: object, other: object) -> None:
    try:
        same = encode_arguments({"x": one}) == encode_arguments({"x": other})
    except UnencodableArgument:
        return
    assert same == _equal(one, other)


def _equal(one: object, other: object) -> bool:
    """As JSON tells values apart: by type too, and 0.0 is -0.0."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    return type(one) is type(other) and one == other
