"""The suites of the core, run through a real PgBouncer in transaction mode.

Sessions are shared there: a client meets those that others had before, and keeps none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import psycopg
import pytest
import test_store_conformance
import test_store_endings
import test_transaction
from idemwatch.demo.servers import PostgresServer
from support.pgbouncer import PgBouncer
from support.stores import Subject, postgres_subject
from support.transactions import Connection
from test_transaction import mine, service  # noqa: F401  fixtures of its tests

# Their databases have a default of their own, which shared sessions would bring elsewhere.
LEFT_OUT = {
    "test_claims_under_a_strict_default_are_decided",
    "test_our_own_transaction_keeps_its_level_whatever_the_databases_default",
}
for _suite in (test_store_conformance, test_store_endings, test_transaction):
    _tests = {name: test for name, test in vars(_suite).items() if name.startswith("test_")}
    assert LEFT_OUT - _tests.keys() in (LEFT_OUT, set()), "what is left out has another name"
    globals().update({name: test for name, test in _tests.items() if name not in LEFT_OUT})

SESSIONS = 10
_numbers = count()


@pytest.fixture(scope="module")
def pooler(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgBouncer]:
    """Before the PostgreSQL of all tests."""
    folder = tmp_path_factory.mktemp("pooler")
    started = PgBouncer.start(postgres_server.url, folder=folder, sessions=SESSIONS)
    yield started
    started.stop()


@pytest.fixture
def subject(pooler: PgBouncer, database: str) -> Iterator[Subject]:
    """The one store here, for the suite that all stores pass."""
    with ExitStack() as stack:
        yield postgres_subject(stack, pooler.url(database), f"p{next(_numbers)}")


@pytest.fixture
def database_url(pooler: PgBouncer, database: str) -> str:
    """One database for the tests of transactions, through the pooler."""
    return pooler.url(database)


@pytest.fixture
def watcher(database: str) -> Iterator[Connection]:
    """Sees what has been committed, past the pooler; the tables are empty."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS effect (who text NOT NULL)")
        connection.execute("TRUNCATE effect, idempotency_record")
        yield connection
