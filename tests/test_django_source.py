"""django-celery-beat's rows, made by Django and read by us, compared with when it has them due."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.django_source import read_django
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule, Status
from idemwatch.scheduler.occurrences import Interval, Moments
from idemwatch.scheduler.place import Place
from support.django_peer import CRONTABS, INTERVALS, RUNS, runs_by_django
from support.peers import DAY, MONDAY, by_name, our_runs, told

Peer = tuple[str, dict[str, list[datetime]]]


@pytest.fixture(scope="module")
def peer(postgres_server: PostgresServer) -> Iterator[Peer]:
    """A database that Django made, and the runs of its rows."""
    name = "django_peer"
    url = postgres_server.create_database(name)
    yield url, runs_by_django(url)
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def rows(peer: Peer) -> dict[str, Schedule]:
    """The rows as we read them."""
    inventory = read(peer[0])
    assert not inventory.problems
    return by_name(inventory)


def read(url: str, now: datetime = MONDAY) -> Inventory:
    return read_django(None, Settings(database_url=url), now=now)


@pytest.mark.parametrize("name", [*CRONTABS, *(f"{n} {period}" for n, period in INTERVALS)])
def test_a_row_is_due_when_django_has_it_due(
    peer: Peer, rows: dict[str, Schedule], name: str
) -> None:
    assert our_runs(rows[name], MONDAY, RUNS) == peer[1][name]


def test_a_row_tells_all_that_is_sent(rows: dict[str, Schedule]) -> None:
    found = rows["all"]
    assert (found.id, found.task, found.place) == ("all", "proj.all", Place("django"))
    assert (found.args, found.kwargs) == ('[1,"zwölf",[null]]', '{"a":2,"b":1}')
    assert json.loads(found.options) == {
        "queue": "q", "exchange": "x", "routing_key": "r", "priority": 7, "headers": {"h": 1},
        "expires": (MONDAY + 9 * DAY).isoformat(),
    }  # fmt: skip
    assert found.priority == 7
    assert (found.fromdate, found.uptodate) == (MONDAY, MONDAY + 9 * DAY)
    assert found.timing == Interval(timedelta(seconds=1), MONDAY)


def test_an_expiry_in_seconds_is_of_each_message(rows: dict[str, Schedule]) -> None:
    found = rows["seconds to live"]
    assert json.loads(found.options) == {"expires": 90, "priority": 200}
    assert (found.uptodate, found.priority) == (None, None)


def test_what_is_not_enabled_is_paused_and_what_has_run_once_is_over(
    rows: dict[str, Schedule],
) -> None:
    idle = {name: one.status for name, one in rows.items() if not one.active}
    assert idle == {"off": Status.PAUSED, "clocked and over": Status.CANCELLED}


def test_what_runs_once_has_one_run(rows: dict[str, Schedule]) -> None:
    def only_run(name: str) -> datetime:
        timing = rows[name].timing
        assert isinstance(timing, Moments)
        (found,) = timing.at
        return found

    assert only_run("clocked") == MONDAY + timedelta(hours=5)
    assert only_run("once") == MONDAY + timedelta(hours=2)  # 4 in Berlin
    assert only_run("once, later") == MONDAY + 2 * DAY  # never ran: due at its start
    assert only_run("sunset once").date() == MONDAY.date()
    assert getattr(rows["once"].timing, "text", "") == "once, 0 4 * * *"


def test_the_sun_is_foreseen(rows: dict[str, Schedule]) -> None:
    timing = rows["sunset"].timing
    assert isinstance(timing, Moments) and timing.text == "sunset at 48.2, 16.37"
    assert [one.hour for one in timing.at] == [18] * 8


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("periodictask", "args = '{'", "args: it is no JSON"),
        ("periodictask", "args = '{}'", "args: dict is no list"),
        ("periodictask", "args = '[NaN]'", "args: it is no JSON"),
        ("periodictask", "kwargs = '[1]'", "kwargs: list is no dict"),
        ("periodictask", "headers = 'x'", "headers: it is no JSON"),
        ("periodictask", "task = ''", "it names no task"),
        ("periodictask", "crontab_id = NULL", "none of interval, crontab, solar, clocked"),
        ("periodictask", "interval_id = 1", "1 second or more"),
        ("periodictask", "interval_id = 2", "it is none of days"),
        ("periodictask", "interval_id = 3", "longer than time"),
        ("periodictask", "crontab_id = NULL, solar_id = 1", "no event of the sun"),
        ("crontabschedule", "minute = '61'", "it is no crontab"),
        ("crontabschedule", "minute = ''", "it is no crontab"),
        ("crontabschedule", "timezone = 'Mars/Olympus'", "no such IANA zone"),
    ],
)
def test_a_wrong_row_is_a_problem_and_the_rest_goes_on(
    broken: str, table: str, change: str, said: str
) -> None:
    with psycopg.connect(broken) as connection:
        connection.execute(f"UPDATE django_celery_beat_{table} SET {change} WHERE id = 2".encode())
    inventory = read(broken)
    assert list(by_name(inventory)) == ["right"]
    assert said in told(inventory)["wrong"]


@pytest.fixture
def broken(empty_database_url: str) -> str:
    """Two rows in the tables, without Django's constraints."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(TABLES)
    return empty_database_url


TABLES = """
CREATE TABLE django_celery_beat_intervalschedule (id int, every int, period text);
CREATE TABLE django_celery_beat_crontabschedule (id int, minute text, hour text, day_of_month text,
    month_of_year text, day_of_week text, timezone text);
CREATE TABLE django_celery_beat_solarschedule (id int, event text, latitude numeric, longitude
    numeric);
CREATE TABLE django_celery_beat_clockedschedule (id int, clocked_time timestamptz);
CREATE TABLE django_celery_beat_periodictask (id int, name text, task text, args text, kwargs text,
    queue text, exchange text, routing_key text, headers text, priority int, expires timestamptz,
    expire_seconds int, one_off bool, start_time timestamptz, enabled bool, last_run_at timestamptz,
    total_run_count int, date_changed timestamptz, interval_id int, crontab_id int, solar_id int,
    clocked_id int);
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 9, 'microseconds'), (2, 1, 'fortnights'),
    (3, 2000000000, 'days');
INSERT INTO django_celery_beat_solarschedule VALUES (1, 'eclipse', 1, 1);
INSERT INTO django_celery_beat_crontabschedule VALUES (1, '5', '*', '*', '*', '*', 'UTC'),
    (2, '59', '*', '*', '*', '*', 'UTC');
INSERT INTO django_celery_beat_periodictask (id, name, task, enabled, date_changed, crontab_id)
    VALUES (1, 'right', 't', true, now(), 1), (2, 'wrong', 't', true, now(), 2);
"""


def test_a_sun_without_ephem_is_a_problem_that_says_so(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)
    problems = told(read(peer[0]))
    assert set(problems) == {"sunset", "sunset once"}
    assert "pip install celery[solar]" in problems["sunset"]


def test_without_its_tables_the_error_says_what_is_missing(empty_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"periodictask.*manage\.py migrate"):
        read(empty_database_url)


def test_an_old_table_is_told(broken: str) -> None:
    with psycopg.connect(broken) as connection:
        connection.execute("ALTER TABLE django_celery_beat_periodictask DROP COLUMN expire_seconds")
    with pytest.raises(ConfigurationError, match=r"expire_seconds.* 2.0 or newer"):
        read(broken)


@pytest.mark.parametrize("url", [None, "postgresql://localhost:5432/?nothing=1"])
def test_no_database_is_a_configuration_error(url: str | None) -> None:
    with pytest.raises(ConfigurationError, match="idempotency_database_url"):
        read_django(None, Settings(database_url=url))


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1") as caught:
        read("postgresql://user:sesame@127.0.0.1:1/db")
    assert "sesame" not in str(caught.value)
