"""Why a message is turned away, and which argument differs: decided without any server."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.idempotency.keys import Binder, KeyRule
from idemwatch.idempotency.record import (
    SECOND,
    Claim,
    Record,
    State,
    Waiter,
    judge,
    record_of,
)
from idemwatch.idempotency.store import Found
from idemwatch.idempotency.why import AUTHORITY, UNKNOWN, Asked, Seen, explain, moment
from idemwatch.idempotency.why_arguments import difference, differing, suspects
from idemwatch.idempotency.why_call import found_in

NOW = 1_800_000_000 * SECOND
ASKED = Asked(key="k", task_id="id-2")
VALUES = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.floats(0, 1))


def record(state: State, due_us: int = NOW + 12 * SECOND, **changed: Any) -> Record:
    claim = Claim(key="k", owner="o", authority="postgres", fingerprint="f", task_id="id-1")
    made = record_of(claim, state, fence=7, due_us=due_us, created_us=NOW - SECOND)
    return made._replace(**changed)


def seen(place: str, one: Record | None) -> Seen:
    return Seen(place, None if one is None else Found(one, NOW))


def send(to: int, text: str = "hello", copies: int = 1, trace: str | None = None) -> None:
    """Never run."""


def rule(**changed: Any) -> KeyRule:
    chosen = {"function": lambda _, to, *__, **___: f"send:{to}", **changed}
    return KeyRule(task_name="send", binder=Binder(send), **chosen)


# -- the verdict -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "verdict", "said"),
    [
        (None, "granted", "there is no record"),
        (record(State.RUNNING), "running", "its lease runs out in 12 s unless it is renewed"),
        (record(State.RUNNING), "running", "claimed or renewed 18 s ago"),
        (record(State.RUNNING, crashes=2), "running", "2 holders before it died"),
        (record(State.RUNNING, NOW - 1), "taken_over", "is taken for dead"),
        (record(State.RUNNING, NOW - 1, crashes=3), "poisoned", "poisoned by the next message"),
        (record(State.WAITING), "running", "id-1 retries, and the key is kept for its attempt 0"),
        (record(State.WAITING, NOW - 1), "granted", "the wait for it is over"),
        (record(State.WAITING, task_id="id-2"), "granted", "the next attempt"),
        (record(State.DONE), "duplicate", "answered with the stored result until"),
        (record(State.DONE), "duplicate", "its result was too large to be kept"),
        (record(State.DONE, NOW - 1), "granted", "the result expired"),
        (record(State.POISONED, 0, crashes=3), "poisoned", "after 4 crashes in a row"),
        (record(State.FORGOTTEN), "granted", "somebody forgot the key"),
        (record(State.RUNNING, authority="redis"), AUTHORITY, "decided by authority 'redis'"),
    ],
)
def test_each_record_is_told_as_the_store_would_judge_it(
    one: Record | None, verdict: str, said: str
) -> None:
    found = explain(replace(ASKED, authority="postgres"), [seen("postgres", one)])
    assert found.verdict == verdict and said in "\n".join(found.told)
    assert found.place == "postgres" and found.record is one


def test_other_arguments_are_a_mismatch_and_the_same_ones_are_not() -> None:
    places = [seen("postgres", record(State.RUNNING))]
    assert explain(replace(ASKED, fingerprint="g"), places).verdict == "mismatch"
    assert explain(replace(ASKED, fingerprint="f"), places).verdict == "running"


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        ({"on_duplicate": "skip"}, State.DONE, "ignored until"),
        ({"on_duplicate": "raise"}, State.DONE, "raises DuplicateTask"),
        ({"on_running": "wait"}, State.RUNNING, "waits and comes again"),
        ({"on_running": "skip"}, State.RUNNING, "of another task id is dropped"),
        ({"on_running": "raise"}, State.RUNNING, "raises AlreadyRunning"),
        ({"on_running": "keep_last"}, State.RUNNING, "the newest message for it waits"),
        ({"on_running": "newer"}, State.RUNNING, "on_running='newer' says"),
    ],
)
def test_what_the_task_says_of_its_duplicates_is_told(
    changed: dict[str, Any], state: State, said: str
) -> None:
    found = explain(replace(ASKED, **changed), [seen("postgres", record(state))])
    assert said in "\n".join(found.told)


LAST = replace(ASKED, on_running="keep_last", task_id="id-3")
BEHIND = {"id-2": Waiter("@5", NOW + SECOND), "id-3": Waiter("@3", 0), "id-1": Waiter("@0", 0)}


@pytest.mark.parametrize(
    ("one", "task_id", "verdict", "said"),
    [
        (record(State.DONE, fingerprint="other"), "id-9", "granted", "is work of its own"),
        (record(State.DONE), "id-1", "duplicate", "answered with the stored result"),
        (record(State.RUNNING, waiters=BEHIND), "id-9", "running", "1 message waits for it"),
        (record(State.RUNNING, waiters=BEHIND), "id-3", "running", "dropped: a newer message"),
        (record(State.RUNNING, NOW - 1), "id-9", "taken_over", "is taken for dead"),
    ],
)
def test_a_task_that_keeps_the_last_is_told_as_its_store_judges(
    one: Record, task_id: str, verdict: str, said: str
) -> None:
    asked = replace(LAST, task_id=task_id, fingerprint="f")
    found = explain(asked, [seen("postgres", one), seen("redis", record(State.DONE))])
    assert (found.verdict, found.place) == (verdict, "postgres")
    assert said in "\n".join(found.told)


def test_a_task_without_protection_runs() -> None:
    places = [seen("postgres", record(State.RUNNING))]
    assert explain(replace(ASKED, enabled=False), places).verdict == "bypassed"


def test_the_cache_answers_only_what_is_finished() -> None:
    done, held = record(State.DONE), record(State.RUNNING)
    assert explain(ASKED, [seen("postgres", None), seen("redis", done)]).place == "redis"
    gone = record(State.FORGOTTEN)
    assert explain(ASKED, [seen("postgres", held), seen("redis", gone)]).place == "postgres"
    redis = replace(ASKED, authority="redis")
    assert explain(redis, [seen("postgres", None), seen("redis", None)]).place == "redis"


def test_a_record_may_stand_where_nobody_could_look() -> None:
    places = [seen("postgres", None), Seen("redis", problem="it is away")]
    found = explain(ASKED, places)
    assert found.verdict == UNKNOWN and "redis, which may decide" in found.told[0]
    assert explain(replace(ASKED, authority="postgres"), places).verdict == "granted"


def test_a_place_that_cannot_be_read_is_not_guessed_at() -> None:
    away = explain(ASKED, [Seen("postgres", problem="refused")])
    assert away.verdict == UNKNOWN and "waits and comes again" in away.told[1]
    runs = explain(replace(ASKED, when_unavailable="run"), [Seen("postgres", problem="refused")])
    assert "runs without protection" in runs.told[1]
    garbage = explain(ASKED, [Seen("redis", problem="garbage", unreadable=True)])
    assert garbage.verdict == "unavailable"
    unset = explain(replace(ASKED, authority="redis"), [seen("postgres", None)])
    assert unset.verdict == UNKNOWN and "idempotency_redis_url is not set" in unset.told[0]


@given(
    state=st.sampled_from(State),
    due=st.integers(-100, 100),
    crashes=st.integers(0, 5),
    same=st.booleans(),
)
def test_the_verdict_is_that_of_a_claim(state: State, due: int, crashes: int, same: bool) -> None:
    one = record(state, NOW + due * SECOND, crashes=crashes)
    claim = Claim("k", "another", "postgres", "f" if same else "g", "id-2")
    asked = replace(ASKED, fingerprint=claim.fingerprint)
    assert explain(asked, [seen("postgres", one)]).verdict == judge(one, claim, NOW).answer.outcome


def test_a_longer_lease_than_the_tasks_tells_nothing_of_its_renewal() -> None:
    asked = replace(ASKED, lease=timedelta(seconds=5))
    found = explain(asked, [seen("postgres", record(State.RUNNING))])
    assert "renewed 1" not in found.told[0] and "held by task id id-1;" in found.told[0]


def test_times_are_told_with_their_distance() -> None:
    assert moment(NOW + 90 * SECOND, NOW) == "2027-01-15 08:01:30 UTC (in 90 s)"
    assert moment(NOW - 7200 * SECOND, NOW).endswith("(120 min ago)")


# -- which argument --------------------------------------------------------------------------------


@given(now=st.tuples(VALUES, VALUES, VALUES), than=st.tuples(VALUES, VALUES, VALUES))
def test_any_mixture_of_two_calls_is_found_out(now: tuple[Any, ...], than: tuple[Any, ...]) -> None:
    names = ("text", "copies", "trace")
    one, other = ({"to": 1, **dict(zip(names, v, strict=True))} for v in (now, than))
    mixed = {**one, "text": other["text"], "trace": other["trace"]}
    found = difference(rule(), rule().fingerprint(mixed), one, other)
    if differing(one, mixed):
        assert found.proved and sorted(found.names or ()) == differing(one, mixed)
    else:
        assert found.same


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ({"text": "7"}, "text"),
        ({"text": "hello"}, "text"),
        ({"copies": "2"}, "copies"),
        ({"copies": 2.0}, "copies"),
        ({"trace": None}, "trace"),
        ({"trace": "a b"}, "trace"),
    ],
)
def test_a_usual_cause_is_proved_without_the_other_call(stored: dict[str, Any], name: str) -> None:
    now = {"to": 1, "text": 7, "copies": 2, "trace": " A B "}
    if stored.get("trace"):
        now["trace"] = "A B"
    found = difference(rule(), rule().fingerprint({**now, **stored}), now)
    assert found.proved and list(found.names or ()) == [name]
    assert "A B" not in found.told()


def test_an_argument_that_a_deploy_added_is_found() -> None:
    now = {"to": 1, "text": "x", "copies": 1, "trace": None}
    before = rule().fingerprint({"to": 1, "text": "x", "copies": 1})
    assert (
        "trace (the call of the record did not have it)" in difference(rule(), before, now).told()
    )


def test_only_what_may_differ_is_named() -> None:
    now = {"to": 1, "text": "x", "copies": 1, "trace": "t"}
    picked = rule(function=None, picked=("to", "text"), ignored=frozenset({"copies"}))
    assert suspects(picked, now) == ["trace"]
    assert "it can only be trace" in difference(picked, "stored", now).told()
    assert (
        "no argument of this task may differ"
        in difference(rule(function=None), "stored", now).told()
    )
    assert (
        "at least one of these differs: to, text, copies, trace."
        in difference(rule(), "stored", now).told()
    )


def test_the_search_ends() -> None:
    now = {"to": 1, "text": "x", "copies": 1, "trace": "t"}
    other = {name: f"{value}!" for name, value in now.items()}
    stored = rule().fingerprint(other)
    assert difference(rule(), stored, now, other).proved
    assert not difference(rule(), stored, now, other, limit=0).proved


# -- what workers answer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strange", [{}, {"w": {}}, {"w": None}, {"w": {"id": ["active"]}}, {"w": {"id": ["a", None]}},
                {"w": {"id": ["a", {"args": "(1,)", "kwargs": {}}]}}],
)  # fmt: skip
def test_an_answer_of_another_form_is_no_message(strange: dict[str, Any]) -> None:
    assert found_in(strange, "id") is None


def test_a_message_is_found_at_its_worker() -> None:
    info = {"name": "send", "args": [1], "kwargs": {"text": "x"}}
    found = found_in({"v": {}, "w@x": {"id": ["reserved", info]}}, "id")
    assert found is not None and (found.task, found.worker, found.state) == (
        "send", "w@x", "reserved",
    )  # fmt: skip
