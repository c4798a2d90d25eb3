"""RedBeat's entries, written by RedBeat and read by us, compared with when it has them due."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule
from dateutil.rrule import FR, MO
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler import redbeat_rrule, redbeat_source
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Status
from idemwatch.scheduler.occurrences import Interval, Moments, timing_text
from idemwatch.scheduler.place import Place
from idemwatch.scheduler.redbeat_source import read_redbeat
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedules import rrule
from support.peers import DAY, MONDAY, by_name, celery_runs, our_runs, told
from support.tls import tls_before


@pytest.fixture
def app(redis_url: str) -> Celery:
    """An app with RedBeat's Redis."""
    return new_app(redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """The Redis that RedBeat writes to."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def new_app(url: str, **conf: Any) -> Celery:
    app = Celery("red", broker="memory://", set_as_current=False)
    app.conf.update({"redbeat_redis_url": url, "redbeat_redis_options": {"cluster": False}} | conf)
    return app


def save(app: Celery, name: str, given: Any, **more: Any) -> Any:
    """Let RedBeat store an entry, and load it again."""
    made = RedBeatSchedulerEntry(name, "proj.task", given, app=app, **more).save()
    return RedBeatSchedulerEntry.from_key(made.key, app=app)


def read(app: Celery, now: datetime = MONDAY) -> Inventory:
    return read_redbeat(app, Settings(), now=now)


@pytest.mark.parametrize(
    "given",
    [
        crontab(),
        crontab(minute="*/15", hour="8-17", day_of_week="mon-fri"),
        crontab(minute=0, hour=[3, 5, 7], day_of_month="1-7", month_of_year=(6, 7)),
        crontab(minute="5,35", hour="22-2", day_of_week="monday,sun"),
    ],
)
def test_a_crontab_is_due_when_redbeat_has_it_due(app: Celery, given: Any) -> None:
    entry = save(app, "one", given)
    found = by_name(read(app))["one"]
    assert our_runs(found, MONDAY, 100) == celery_runs(entry.schedule, MONDAY, 100)


def test_a_crontab_is_in_the_zone_of_the_app(redis_url: str) -> None:
    app = new_app(redis_url, timezone="Asia/Kolkata")
    entry = save(app, "one", crontab(minute=30, hour=6))
    entry.schedule.app = app
    found = by_name(read(app))["one"]
    assert found.zone == "Asia/Kolkata" and timing_text(found.timing) == "30 6 * * *"
    start = MONDAY.astimezone(app.timezone)
    assert our_runs(found, MONDAY, 9) == celery_runs(entry.schedule, start, 9)


@pytest.mark.parametrize("given", [30, 1.5, timedelta(days=2), schedule(timedelta(minutes=5))])
def test_an_interval_counts_on_from_its_last_run(app: Celery, given: Any) -> None:
    entry = save(app, "one", given)
    last = datetime(2026, 5, 31, 23, 59, 58, 250_000, tzinfo=UTC)
    entry.reschedule(last)
    found = by_name(read(app))["one"]
    assert found.timing == Interval(entry.schedule.run_every, last)
    assert our_runs(found, last, 20) == celery_runs(entry.schedule, last, 20)


def test_a_relative_interval_is_rounded_as_redbeat_rounds_it(app: Celery) -> None:
    entry = save(app, "one", schedule(timedelta(minutes=90), relative=True))
    found = by_name(read(app))["one"]
    assert our_runs(found, MONDAY, 9) == celery_runs(entry.schedule, MONDAY, 9)


@pytest.mark.parametrize(
    "rule",
    [
        {"freq": "DAILY", "byhour": [6, 18], "byminute": 0, "bysecond": 0},
        {"freq": "WEEKLY", "byweekday": (MO, FR), "interval": 1},
        {"freq": "WEEKLY", "byweekday": MO, "wkst": MO},
        {"freq": "MINUTELY", "interval": 7},
        {"freq": "HOURLY", "interval": 5, "count": 1_015},
        {"freq": "DAILY", "until": MONDAY + 3 * DAY},
        {"freq": "MONTHLY", "bymonthday": -1, "bysetpos": 1},
    ],
)
def test_a_recurrence_rule_is_foreseen_as_redbeat_has_it_due(
    app: Celery, rule: dict[str, Any]
) -> None:
    start = datetime(2025, 11, 3, 4, 5, 6, tzinfo=UTC)
    entry = save(app, "one", rrule(dtstart=start, app=app, **rule))
    timing = by_name(read(app))["one"].timing
    assert isinstance(timing, Moments) and timing.text.startswith("rrule ")
    expected = list(entry.schedule.rrule.between(MONDAY, MONDAY + 8 * DAY))
    assert list(timing.at) == expected


def test_a_finished_rule_has_no_runs(app: Celery) -> None:
    save(app, "one", rrule("DAILY", dtstart=MONDAY - 9 * DAY, count=3, app=app))
    assert getattr(by_name(read(app))["one"].timing, "at", None) == ()


def test_a_rule_of_too_many_runs_is_a_problem(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redbeat_rrule, "MOST_COUNTED", 99)
    save(app, "one", rrule("DAILY", dtstart=MONDAY - 100 * DAY, count=200, app=app))
    assert "over 99 runs are to be counted" in told(read(app))["one"]


def test_an_entry_tells_all_that_is_sent(app: Celery) -> None:
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)
    save(
        app, "one:two", 60, args=[1, "zwölf", at], kwargs={"a": None},
        options={"queue": "q", "priority": 7, "expires": at},
    )  # fmt: skip
    found = by_name(read(app))["one:two"]
    assert (found.id, found.task, found.place) == ("one:two", "proj.task", Place("redbeat"))
    assert json.loads(found.args)[:2] == [1, "zwölf"]
    assert json.loads(found.args)[2] == {"__type__": "datetime", "__value__": at.isoformat()}
    assert found.kwargs == '{"a":null}' and found.priority == 7
    assert json.loads(found.options)["expires"] == at.isoformat()


def test_what_is_not_enabled_is_paused(app: Celery) -> None:
    save(app, "off", 60, enabled=False)
    save(app, "on", 60)
    found = by_name(read(app))
    assert (found["off"].status, found["on"].status) == (Status.PAUSED, Status.PENDING)


def test_static_entries_are_read_once_and_a_lost_one_is_told(
    app: Celery, client: redis.Redis
) -> None:
    app.conf.beat_schedule = {"static": {"task": "t", "schedule": crontab(minute=3)}}
    RedBeatScheduler(app)
    client.sadd("redbeat::statics", "lost")
    inventory = read(app)
    assert "static" in by_name(inventory)
    assert len(inventory.schedules) == len(by_name(inventory))
    assert (
        list(told(inventory)) == ["lost"]
        and "the index does not name it" in told(inventory)["lost"]
    )


def test_a_prefix_is_kept_to(redis_url: str) -> None:
    ours, theirs = (new_app(redis_url, redbeat_key_prefix=one) for one in ("ours:", "theirs:"))
    save(ours, "one", 60)
    save(theirs, "two", 60)
    assert list(by_name(read(ours))) == ["one"]


def test_many_entries_are_read_in_batches(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redbeat_source, "BATCH", 7)
    for number in range(50):
        save(app, f"entry{number:02}", 60)
    before = client.info("commandstats").get("cmdstat_keys", {}).get("calls", 0)
    inventory = read(app)
    assert [one.name for one in inventory.schedules] == [f"entry{n:02}" for n in range(50)]
    assert client.info("commandstats").get("cmdstat_keys", {}).get("calls", 0) == before


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (None, "it has none"),
        ("", "it has none"),
        (b"\xff\xfe", "not RedBeat's JSON"),
        ("{", "not RedBeat's JSON"),
        ("[" * 100_000, "not RedBeat's JSON"),
        ("[1]", "it is a JSON list"),
        ("\x80\x04K\x01.", "not RedBeat's JSON"),
        ({"schedule": None}, "None is none of crontab"),
        ({"schedule": "* * * * *"}, "None is none of crontab"),
        ({"schedule": {"__type__": "lunar"}}, "'lunar' is none of crontab"),
        ({"schedule": {"__type__": "crontab", "minute": "61"}}, "it is no crontab"),
        ({"schedule": {"__type__": "crontab", "minute": None, "tz": "UTC"}}, "no field 'tz'"),
        ({"schedule": {"__type__": "crontab", "minute": [[1]]}}, "it is no crontab"),
        ({"schedule": {"__type__": "interval"}}, "no number of seconds"),
        ({"schedule": {"__type__": "interval", "every": "x"}}, "neither a timedelta nor seconds"),
        ({"schedule": {"__type__": "interval", "every": 0.2}}, "1 second or more"),
        ({"schedule": {"__type__": "interval", "every": 1e300}}, "no number of seconds"),
        ({"schedule": {"__type__": "rrule", "freq": 99}}, "it is no rrule"),
        ({"schedule": {"__type__": "rrule", "freq": 3, "interval": 0.5}}, "interval 0.5"),
        ({"schedule": {"__type__": "rrule", "freq": 3, "exdate": 1}}, "no part 'exdate'"),
        ({"schedule": {"__type__": "rrule", "freq": 3, "byweekday": [{"n": 1}]}}, "no weekday"),
        ({"schedule": {"__type__": "rrule", "freq": 6, "dtstart": 0}}, "over 100,000 times"),
        ({"task": None}, "it names no task"),
        ({"args": "abc"}, "args: str is no list"),
        ({"args": [{"__type__": "datetime", "year": 0}]}, "not RedBeat's JSON"),
        ({"args": [{"__type__": "datetime", "timezone": "X/Y"}]}, "no such IANA zone"),
        ({"timezone": "UTC"}, "'timezone' is not of the format"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_problem_and_the_rest_goes_on(
    app: Celery, client: redis.Redis, definition: Any, said: str
) -> None:
    save(app, "right", 60)
    save(app, "wrong", 60)
    if isinstance(definition, dict):
        stored = json.loads(client.hget("redbeat:wrong", "definition") or "")
        definition = json.dumps(stored | definition)
    if definition is None:
        client.hdel("redbeat:wrong", "definition")
    else:
        client.hset("redbeat:wrong", "definition", definition)
    inventory = read(app)
    assert list(by_name(inventory)) == ["right"]
    assert said in told(inventory)["wrong"]


def test_a_key_of_another_type_and_garbage_beside_it_are_problems(
    app: Celery, client: redis.Redis
) -> None:
    save(app, "text", 60)
    client.delete("redbeat:text")
    client.set("redbeat:text", "a pickle, perhaps")
    client.zadd("redbeat::schedule", {b"\xff": 1.0})
    save(app, "meta", 60)
    client.hset("redbeat:meta", "meta", "garbage")
    problems = told(read(app))
    assert set(problems) == {"text", "\ufffd", "meta"}
    assert "WRONGTYPE" in problems["text"]


def test_nothing_is_an_empty_inventory(app: Celery) -> None:
    assert read(app) == Inventory("redbeat")


def test_an_index_of_another_type_is_told(app: Celery, client: redis.Redis) -> None:
    client.set("redbeat::schedule", "x")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        read(app)


def test_it_is_read_over_tls_and_only_from_a_server_that_is_known(
    redis_url: str, tmp_path: Path
) -> None:
    save(new_app(redis_url), "one", 60)
    with tls_before(redis_url, tmp_path) as (url, authority):
        known = new_app(url, redbeat_redis_use_ssl={"ssl_ca_certs": str(authority)})
        assert list(by_name(read(known))) == ["one"]
        with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            read(new_app(url))


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_is_away_is_named_without_its_password(scheme: str) -> None:
    app = new_app(f"{scheme}://user:sesame@127.0.0.1:1/3")
    with pytest.raises(StoreUnavailable) as caught:
        read(app)
    assert re.search(rf"redbeat is unavailable: {scheme}://user:\*+@127\.0\.0\.1:1/3: .*refused",
                     str(caught.value))  # fmt: skip
    assert "sesame" not in str(caught.value)


def test_the_broker_is_read_where_no_other_redis_is_named(redis_url: str) -> None:
    save(new_app(redis_url), "one", 60)
    app = Celery("red", broker=redis_url, set_as_current=False)
    assert list(by_name(read(app))) == ["one"]


@pytest.mark.parametrize(
    ("url", "conf"),
    [
        ("amqp://guest:sesame@localhost//", {}),
        ("redis-sentinel://localhost:26379", {}),
        ("redis://:sesame/@localhost:1", {}),
        ("rediss://localhost:1", {"redbeat_redis_use_ssl": {"no_such": 1}}),
    ],
)
def test_an_address_that_cannot_be_used_is_a_configuration_error(
    url: str, conf: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="redbeat_redis_url") as caught:
        read(new_app(url, **conf))
    assert "sesame" not in str(caught.value)


def test_without_an_app_the_error_says_how_to_give_one() -> None:
    with pytest.raises(ConfigurationError, match="celery -A proj idemwatch"):
        read_redbeat(None, Settings())
