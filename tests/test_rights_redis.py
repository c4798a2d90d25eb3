"""docs/rights/redis.acl: each user can do its work and nothing that it has is spare.

The rest is refused, on Redis 6.2 and on 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from conftest import redis_program
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter.state import Options, State
from idemwatch.exporter.worker_directory_store import Facts, WorkerDirectory
from idemwatch.idempotency.engine import new_owner
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.record import SECOND, Wait
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.settings import Settings
from idemwatch.idempotency.stores import warn_of_eviction
from redis.exceptions import ResponseError
from support.commands import invoke
from support.doctor import visit
from support.eager import counted
from support.fleet import Fleet
from support.publishers import Desk
from support.redis_topologies import Cluster, Sentinels
from support.rights import ACL, PASSWORD, REDIS_USERS, LockedRedis, acl_file, rules
from support.stores import HOUR_US, Subject, result

NAMESPACE = "idemwatch"
FACTS = Facts("node", "host:1", "http", 1, "#1")
# Only sent to a cluster, behind a Sentinel, or by what loads a script anew.
OF_OTHER_PLACES = {"+role", "+cluster|slots", "+asking"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedRedis]:
    file = acl_file(tmp_path_factory.mktemp("acl"))
    server = RedisServer.start(binary=redis_program(), config={"aclfile": str(file)})
    yield LockedRedis(server, file)
    server.stop()


@pytest.fixture(autouse=True)
def _clean(locked: LockedRedis) -> None:
    locked.load()
    _empty(locked)


def _empty(locked: LockedRedis) -> None:
    with locked.admin() as admin:
        admin.flushall()
        admin.script_flush()


# -- what each does --------------------------------------------------------------------------------


def all_steps(store: RedisStore) -> None:
    """Every step of a store, by way of its records."""
    subject = Subject(store, "redis", lose=id)
    subject.finish("done")
    subject.ask("done")
    held = subject.hold("held")
    assert store.renew([held])
    subject.ask("held", wait=Wait(new_owner()))
    assert store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert store.release(subject.hold("released"))
    assert store.abandon("nothing", "nobody")
    subject.poison("poisoned")
    assert store.forget("poisoned")
    lock = subject.hold("lock", endpoint="lock", lease_us=30 * SECOND)
    store.wait_released("lock", 0.01)
    assert store.release(lock)
    store.put_done(subject.held(subject.claim("put"))._replace(fence=0), result())
    store.ping()


def work(locked: LockedRedis) -> None:
    url = locked.url("worker", 1)
    store, directory = (
        RedisStore(RedisLink.from_url(url), NAMESPACE),
        WorkerDirectory(RedisLink.from_url(url), NAMESPACE),
    )
    try:
        all_steps(store)
        warn_of_eviction(store)
        store.eviction_policy()
        directory.register(FACTS)
        directory.remove(FACTS)
    finally:
        store.close()
        directory.close()


def publish(locked: LockedRedis, broker: str) -> None:
    """A first call, one that its note answers, and one whose message cannot be sent."""
    conf = {"idempotency_authority": "redis", "idempotency_redis_url": locked.url("publisher", 1)}
    desk = Desk(broker, conf)
    try:
        first = desk.task.delay(1)
        answered = desk.task.delay(1)
        with pytest.raises(Exception, match="none such"):
            desk.task.apply_async((2,), compression="none such")
        key = desk.task.idempotency_key_of(2).key
        with locked.admin(1) as admin:
            if answered.id != first.id or admin.exists(f"{NAMESPACE}:{{publish:{key}}}"):
                raise StoreUnavailable("redis", "a note was not read, or not taken back")
        if counted("publishes", desk.task, outcome="unavailable"):
            raise StoreUnavailable("redis", "was not asked")
    finally:
        desk.close()


def export(locked: LockedRedis) -> None:
    with locked.admin(1) as admin:
        admin.sadd(f"{NAMESPACE}:poisoned", "key")
    directory = WorkerDirectory(RedisLink.from_url(locked.url("worker", 1)), NAMESPACE)
    directory.register(FACTS)
    directory.close()
    with locked.admin(1) as admin:
        admin.script_flush()
    state = State(Settings(redis_url=locked.url("exporter", 1)), Options(broker_url=None))
    try:
        for one in state.collectors:
            list(one.collect())
    finally:
        for one in state.collectors:
            one.close()


def operate(locked: LockedRedis) -> None:
    """Look at keys, forget finished and poisoned ones, and let the doctor look."""
    store = RedisStore(RedisLink.from_url(locked.url("worker", 1)), NAMESPACE)
    subject = Subject(store, "redis", lose=id)
    subject.finish("done")
    subject.poison("poisoned")
    store.close()
    directory = WorkerDirectory(RedisLink.from_url(locked.url("worker", 1)), NAMESPACE)
    directory.register(FACTS)
    directory.close()
    with locked.admin(1) as admin:
        admin.script_flush()
        url = ("--redis-url", locked.url("operator", 1))
        for words in (("list",), ("list", "--state", "poisoned"), ("show", "done")):
            _succeeds("keys", *words, *url)
        _succeeds("keys", "forget", "--yes", "done", "poisoned", *url)
        if admin.exists(f"{NAMESPACE}:poisoned"):
            raise StoreUnavailable("redis", "the list of poisoned keys was left")
    seen = visit("--redis-url", locked.url("operator", 1))
    listed = "metrics of node" in seen.text("metrics") and "policy is noeviction" in seen.text(
        "redis"
    )
    listed = listed and "no poisoned key in Redis" in seen.text("records")
    if not listed or "permission" in seen.output or {"redis", "records"} & seen.bad().keys():
        raise StoreUnavailable("redis", seen.output)


def _succeeds(*words: str) -> None:
    done = invoke(*words)
    if done.exit_code != 0:
        raise StoreUnavailable("redis", done.output)


Job = Callable[[LockedRedis, str], None]
JOBS: dict[str, Job] = {
    "worker": lambda locked, _: work(locked),
    "publisher": publish,
    "exporter": lambda locked, _: export(locked),
    "operator": lambda locked, _: operate(locked),
}
each_user = pytest.mark.parametrize("user", REDIS_USERS)


@each_user
def test_its_rights_are_enough(locked: LockedRedis, redis_url: str, user: str) -> None:
    JOBS[user](locked, redis_url)


@each_user
def test_none_of_its_rights_is_spare(locked: LockedRedis, redis_url: str, user: str) -> None:
    own = rules(user)
    for right in own:
        if not right.startswith("+") or right in OF_OTHER_PLACES:
            continue
        locked.load(**{user: " ".join(word for word in own if word != right)})
        _empty(locked)
        with pytest.raises((StoreUnavailable, AssertionError)):
            JOBS[user](locked, redis_url)
            pytest.fail(f"{right} is spare", pytrace=False)


@pytest.mark.parametrize("kind", ["shared_sentinels", "shared_cluster"])
def test_its_rights_are_enough_where_there_are_several_servers(
    request: pytest.FixtureRequest, kind: str
) -> None:
    servers: Sentinels | Cluster = request.getfixturevalue(kind)
    for node in servers.nodes:
        node.call("ACL", "SETUSER", "idemwatch_worker", "reset", *rules("worker"))
        node.call("ACL", "SETUSER", "idemwatch_worker", f">{PASSWORD}")
    store = RedisStore(RedisLink.from_url(with_login(servers.url, "worker")), NAMESPACE)
    all_steps(store)
    store.close()


def with_login(url: str, user: str) -> str:
    return url.replace("://", f"://idemwatch_{user}:{PASSWORD}@", 1)


@pytest.mark.worker
def test_a_real_worker_does_its_tasks_with_the_rights_of_a_worker(
    locked: LockedRedis, new_fleet: Callable[..., Fleet]
) -> None:
    fleet = new_fleet("redis", redis_url=locked.url("worker", 2))
    label = fleet.label()
    for name, *more in (("work",), ("work",), ("retrying", 2)):
        fleet.result(fleet.send(name, label, *more))
    assert fleet.events(label) == ["start", "end", "attempt 0", "attempt 1"]
    fleet.wait(lambda: bool(_members(locked)), "it is in the list of workers")


def _members(locked: LockedRedis) -> int:
    with locked.admin(2) as admin:
        return int(admin.exists(f"{NAMESPACE}:{{workers}}:facts"))


# -- what each may not -----------------------------------------------------------------------------

KEY = "idemwatch:{k}"
FACTS_KEY = "idemwatch:{workers}:facts"
POISONED = "idemwatch:poisoned"
OF_OTHERS = (
    "GET celery", "SET celery 1", "LPUSH celery message", "GET idemwatch2",
    "EVAL|return 1|1|celery", "EVAL|return redis.call('GET', 'celery')|0",
    "FLUSHALL", "FLUSHDB", "KEYS *", "RANDOMKEY",
    "CONFIG GET *", "CONFIG SET dir /", "ACL LIST", "ACL SETUSER me on", "ACL WHOAMI", "SAVE",
    "SHUTDOWN", "DEBUG SLEEP 0", "MONITOR", "CLIENT LIST", "SCRIPT FLUSH", "SCRIPT KILL",
    "MODULE LOAD /x", "REPLICAOF NO ONE", "CLUSTER RESET", "SUBSCRIBE x", "PUBLISH x y",
    f"DUMP {KEY}", "SWAPDB 0 1", f"RENAME {KEY} {KEY}2", "FCALL f 0",
)  # fmt: skip
REGISTER = f"HSET {FACTS_KEY} node {{}}"
REFUSED = {
    "worker": ("SCAN 0", f"SMEMBERS {POISONED}", f"HGETALL {FACTS_KEY}"),
    "publisher": ("SCAN 0", f"SREM {POISONED} k", f"SADD {POISONED} k", REGISTER, "INFO"),
    "exporter": (
        f"GET {KEY}", f"SET {KEY} 1", f"DEL {KEY}", REGISTER, "SCAN 0", "INFO",
        f"EVAL|return redis.call('SET', KEYS[1], 'x')|1|{KEY}",
        f"EVAL|return redis.call('DEL', KEYS[1])|1|{KEY}",
    ),
    "operator": (REGISTER, f"SADD {POISONED} k", f"RPUSH {KEY} 1"),
}  # fmt: skip


@each_user
def test_the_rest_is_refused(locked: LockedRedis, user: str) -> None:
    with locked.admin() as admin, redis.Redis.from_url(locked.url(user)) as client:
        known = {name.upper() for name in admin.command()}
        for line in (*OF_OTHERS, *REFUSED[user]):
            command = line.split("|") if "|" in line else line.split()
            if command[0] not in known:  # FCALL came with Redis 7
                continue
            with pytest.raises(ResponseError, match=r"permission|can't run|can't access"):
                client.execute_command(*command)
                pytest.fail(f"{user} may {line}", pytrace=False)
        assert admin.dbsize() == 0


def test_nobody_gets_in_without_a_password(locked: LockedRedis) -> None:
    for login in ("", "default:@", "idemwatch_worker:@", "idemwatch_admin:wrong@", "worker:p@"):
        client = redis.Redis.from_url(f"redis://{login}127.0.0.1:{locked.port}/0")
        with client, pytest.raises((ResponseError, redis.ConnectionError)):
            client.ping()


def test_a_user_of_the_file_as_it_ships_has_no_password_and_cannot_log_in() -> None:
    lines = ACL.read_text().splitlines()
    assert {line.split()[1] for line in lines} >= {f"idemwatch_{one}" for one in REDIS_USERS}
    for line in lines:
        words = line.split()
        assert words[0] == "user" and not any(word[0] in "#>" for word in words)
        assert ("nopass" in words) == (words[1] == "default") and ("off" in words) == (
            words[1] == "default"
        )
