"""Claims, leases and their ends between a process and real stores, through replies that are lost.

Cases 2, 3, 4, 9 and 10; and how long a key may be held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import redis
from idemwatch.idempotency import LeaseLost
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.heartbeat import Lease
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import SECOND, Claim, Completion, Outcome, State
from support.eager import Bench
from support.proxy import TcpProxy
from support.services import counted, end_lease, hold, record, service_of
from support.stores import DEADLINE_SECONDS, KEY, result, wait_until

TASK = "tests.engine"


class Line:
    """A service whose server is behind a proxy."""

    def __init__(self, kind: str, url: str, proxy: TcpProxy) -> None:
        self.kind, self.url, self.proxy = kind, url, proxy
        self.service = service_of(kind, lambda _: proxy.url(url), lease=timedelta(seconds=1))
        self.direct = service_of(kind, lambda _: url, namespace=self.service.settings.namespace)
        self.service.store.ping()

    @property
    def engine(self) -> Any:
        return self.service.engine

    @property
    def heartbeat(self) -> Any:
        return self.engine.heartbeat(self.service.store)

    def claim(self, **changed: Any) -> Claim:
        """A claim of ours for a second."""
        given = {"owner": "ours", "authority": self.service.settings.authority}
        return Claim(key=KEY, **{**given, "lease_us": SECOND, **changed})

    def hold(self, **options: Any) -> Lease:
        """The lease of a key that was free, renewed from now on."""
        claim, began = self.claim(**options.pop("claim", {})), time.monotonic()
        answer = self.engine.claim(self.service.store, claim)
        assert answer.granted
        lease = self.engine.hold(
            self.service.store, claim, answer, task=TASK, claimed_at=began, **options
        )
        assert isinstance(lease, Lease)
        return lease

    def flush(self) -> None:
        """Take all records away."""
        if self.kind == "redis":
            with redis.Redis.from_url(self.url) as client:
                client.flushdb()
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("DELETE FROM idempotency_record")

    @contextmanager
    def losing_the_reply(self, step: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
        """A step that is carried out, whose reply is lost and whose connection then breaks."""
        self.proxy.drop_replies()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(step)
            assert self.proxy.caught.wait(DEADLINE_SECONDS)
            self.proxy.heal()
            self.proxy.reset()
            yield lambda: future.result(DEADLINE_SECONDS)


@pytest.fixture(params=["redis", "postgres"])
def line(request: pytest.FixtureRequest, tcp_proxy: Callable[[str], TcpProxy]) -> Iterator[Line]:
    names = {"redis": "redis_url", "postgres": "database_url"}
    url = str(request.getfixturevalue(names[request.param]))
    yield Line(request.param, url, tcp_proxy(url))
    close_engines()


def lost_leases() -> float:
    return counted("lease_lost_total", task=TASK)


# -- a reply that is lost --------------------------------------------------------------------------


def test_a_claim_whose_reply_was_lost_is_ours(line: Line) -> None:
    claim, store = line.claim(lease_us=30 * SECOND), line.service.store
    with line.losing_the_reply(lambda: line.engine.claim(store, claim)) as answer:
        assert answer().outcome is Outcome.GRANTED
    found = record(line.direct)
    assert (found.owner, found.crashes, found.fence) == ("ours", 0, answer().fence)
    lease = line.engine.hold(store, claim, answer(), task=TASK, claimed_at=time.monotonic())
    assert line.engine.complete(lease, result()) is Completion.STORED


def test_a_result_whose_reply_was_lost_is_stored_once(line: Line) -> None:
    lease = line.hold()
    with line.losing_the_reply(lambda: line.engine.complete(lease, result(b"7"))) as answer:
        assert answer() is Completion.STORED
    assert (record(line.direct).state, record(line.direct).result) == (State.DONE, b"7")


def test_a_release_whose_reply_was_lost_is_no_lost_lease(line: Line) -> None:
    lease, before = line.hold(), lost_leases()
    with line.losing_the_reply(lambda: line.engine.release(lease)) as answer:
        answer()
    assert line.direct.show(KEY) is None
    assert not lease.lost and lost_leases() == before


def test_a_park_whose_reply_was_lost_keeps_the_key_for_the_retry(line: Line) -> None:
    lease, before = line.hold(claim={"task_id": "id"}), lost_leases()

    def park() -> None:
        line.engine.park(lease, fingerprint="", open_after=timedelta(minutes=1))

    with line.losing_the_reply(park) as answer:
        answer()
    assert record(line.direct).state is State.WAITING and lost_leases() == before
    following = line.claim(owner="next", task_id="id", attempt=1)
    assert line.engine.claim(line.service.store, following).granted


def test_a_claim_that_was_interrupted_is_given_back_and_is_no_crash(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, claim = line.service.store, line.service.store.claim

    def interrupted(given: Claim) -> None:
        assert claim(given).granted
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "claim", interrupted)
        with pytest.raises(KeyboardInterrupt):
            line.engine.claim(store, line.claim())
    wait_until(lambda: line.direct.show(KEY) is None)


def test_a_claim_that_is_turned_away_touches_nothing(line: Line) -> None:
    hold(line.direct)
    before = record(line.direct)
    answer = line.engine.claim(line.service.store, line.claim())
    assert answer.outcome is Outcome.RUNNING and not line.heartbeat._errands
    line.heartbeat.beat()
    assert record(line.direct) == before


# -- a lease that is renewed -----------------------------------------------------------------------


def test_a_renewal_survives_a_connection_error(line: Line) -> None:
    lease, before = line.hold(), record(line.direct)
    labels = {"store": line.kind, "operation": "renew"}
    errors = counted("store_errors_total", **labels)
    line.proxy.refuse()
    wait_until(lambda: counted("store_errors_total", **labels) > errors)
    line.proxy.heal()
    wait_until(lambda: record(line.direct).due_us > before.due_us + 3_000_000)
    lease.check()
    assert not lease.lost
    assert (record(line.direct).owner, record(line.direct).fence) == ("ours", lease.fence)
    assert line.engine.complete(lease, result()) is Completion.STORED


def test_a_renewal_whose_reply_was_lost_is_no_lost_lease(line: Line) -> None:
    lease, before = line.hold(), record(line.direct)
    with line.losing_the_reply(lambda: True):  # the next one is that of the heartbeat
        pass
    wait_until(lambda: record(line.direct).due_us > before.due_us + 1_500_000)
    lease.check()
    assert not lease.lost


def test_others_wait_for_as_long_as_it_is_renewed(line: Line) -> None:
    lease, until = line.hold(), time.monotonic() + 2.2  # twice the length of the lease
    outcomes: set[str] = set()

    def over() -> bool:
        outcomes.add(line.direct.store.claim(line.claim(owner="other")).outcome)
        return time.monotonic() > until

    wait_until(over)
    assert outcomes == {"running"}
    line.engine.release(lease)
    assert line.direct.store.claim(line.claim(owner="other")).outcome is Outcome.GRANTED


def test_a_key_is_held_no_longer_than_max_hold(line: Line) -> None:
    lease, before = line.hold(max_hold_seconds=0.5), lost_leases()
    other = line.claim(owner="other", lease_us=30_000_000)
    wait_until(lambda: line.direct.store.claim(other).outcome is Outcome.TAKEN_OVER)
    lease.renewed_at = 0.0  # as it is when more than its length has gone by
    with pytest.raises(LeaseLost):
        lease.check()
    assert lost_leases() == before + 1
    assert line.engine.complete(lease, result()) is Completion.STALE
    assert record(line.direct).owner == "other"


@pytest.mark.parametrize("end", ["complete", "park", "release"])
def test_a_stale_holder_ends_nothing_of_its_successors(line: Line, end: str) -> None:
    lease, before = line.hold(), lost_leases()
    line.heartbeat.remove(lease)  # frozen
    end_lease(line.direct)
    hold(line.direct, owner="successor")
    successor = record(line.direct)
    if end == "complete":
        assert line.engine.complete(lease, result()) is Completion.STALE
        lease.lose()  # as those who complete do, when they count it
    elif end == "park":
        line.engine.park(lease, fingerprint="", open_after=timedelta(minutes=1))
    else:
        line.engine.release(lease)
    assert record(line.direct) == successor
    assert lease.lost and lost_leases() == before + 1


# -- a record that vanishes ------------------------------------------------------------------------


def test_a_holder_whose_record_vanished_is_told_and_may_still_finish(line: Line) -> None:
    lease = line.hold()
    line.flush()
    wait_until(lambda: lease.lost)
    with pytest.raises(LeaseLost):
        lease.check()
    assert line.engine.complete(lease, result(b"7")) is Completion.STORED
    answer = line.engine.claim(line.service.store, line.claim(owner="other"))
    assert answer.outcome is Outcome.DUPLICATE and answer.record.result == b"7"


def test_a_holder_whose_record_vanished_gives_nothing_of_anothers_back(line: Line) -> None:
    lease = line.hold()
    line.flush()
    hold(line.direct, owner="other")
    other = record(line.direct)
    line.engine.release(lease)
    assert lease.lost and record(line.direct) == other


# -- how long a task may hold its key --------------------------------------------------------------

HOLDS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "neither task nor app has a limit": ({}, {}, 6 * 3600),
    "the app's": ({}, {"task_time_limit": 90}, 90),
    "the task's own": ({"time_limit": 60}, {"task_time_limit": 90}, 60),
    "max_hold": ({"time_limit": 60, "idempotency_max_hold": 7200}, {}, 7200),
}


@pytest.mark.parametrize("why", HOLDS)
def test_a_task_holds_its_key_for_as_long_as_it_may_run(
    idempotency_memory: MemoryStore, why: str
) -> None:
    options, conf, seconds = HOLDS[why]
    bench, held = Bench(idempotency_memory), list[float]()
    bench.app.conf.update(conf)

    def work(self: Any) -> None:
        held.append(self.claim.hold_until - self.claim.renewed_at)

    bench.task(work, bind=True, **options).delay()
    assert held == [pytest.approx(seconds)]


# -- what is stored late ---------------------------------------------------------------------------


class Refusing(Exception):
    """What a time limit raises."""


def late(line: Line, result_data: bytes, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A lease whose completion was interrupted while the store was away."""
    lease = line.hold()
    store = line.service.store
    complete = store.complete

    def interrupted(*_: Any) -> Any:
        raise Refusing

    with monkeypatch.context() as patched:
        patched.setattr(store, "complete", interrupted)
        with pytest.raises(Refusing):
            line.engine.complete(lease, result(result_data))
    assert store.complete == complete
    return lease


def test_a_result_that_a_time_limit_interrupted_is_stored_all_the_same(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted("completions_total", task=TASK, result="stored")
    late(line, b"7", monkeypatch)
    wait_until(lambda: record(line.direct).state is State.DONE)
    assert record(line.direct).result == b"7"
    wait_until(lambda: counted("completions_total", task=TASK, result="stored") == before + 1)


def test_a_late_result_that_a_successor_has_overtaken_is_counted(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, stale = lost_leases(), counted("completions_total", task=TASK, result="stale")
    monkeypatch.setattr(line.heartbeat, "_ensure_running", lambda _: None)
    late(line, b"7", monkeypatch)
    end_lease(line.direct)
    successor = hold(line.direct)
    line.heartbeat.beat()
    assert record(line.direct).owner == successor.claim.owner
    assert lost_leases() == lost + 1
    assert counted("completions_total", task=TASK, result="stale") == stale + 1


def test_a_result_without_a_claim_whose_reply_was_lost_is_stored(line: Line) -> None:
    with line.losing_the_reply(lambda: line.service.store_result(KEY, 5)) as answer:
        assert answer() is True
    assert line.direct.store_result(KEY, 6) is False


def test_asking_for_a_lease_does_not_renew_it_past_its_longest_hold(line: Line) -> None:
    lease = line.hold(max_hold_seconds=0.01)
    lease.renewed_at -= 2
    wait_until(lambda: time.monotonic() > lease.hold_until)
    with pytest.raises(LeaseLost):
        lease.check()
