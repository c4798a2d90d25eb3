"""The state exporter over real servers: what it serves, and that Prometheus can read it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator

import pytest
from celery import Celery
from idemwatch.alerts.thresholds import BUSY, HOT, QUIET, Thresholds
from idemwatch.exporter.state import Options, State
from idemwatch.exporter.worker_capacity import WorkerCapacity
from idemwatch.exporter.worker_collector import WorkerCollector
from idemwatch.exporter.worker_directory_store import Facts, WorkerDirectory
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.settings import Settings
from support.exporters import Client, Series, open_exporter, series, value
from support.stores import wait_until

OF_POSTGRES = {"postgres", "records", "beats", "schedules"}
OF_REDIS = {"redis", "redis_records", "workers"}
OF_BROKER = {"broker", "queues"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return Settings(redis_url=redis_url, database_url=database_url)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    options = Options(broker_url=settings.redis_url, refresh_seconds=1)
    with open_exporter(settings, options) as running:
        wait_until(running.healthy)
        yield running


def test_each_source_has_its_collector(client: Client) -> None:
    assert set(client.success()) == OF_POSTGRES | OF_REDIS | OF_BROKER


def test_each_store_that_answers_is_up(client: Client) -> None:
    found = client.series()
    for store in ("postgres", "redis", "broker"):
        assert value(found, "store_up", store=store) == 1, store


def test_each_collector_tells_how_long_it_took_and_when(client: Client) -> None:
    found = client.series()
    for name in client.success():
        took = value(found, "collector_duration_seconds", collector=name)
        at = value(found, "collector_last_success_timestamp_seconds", collector=name)
        assert took is not None and 0 < took < 60, name
        assert at is not None and at > 1_700_000_000, name


def test_all_is_told_that_boards_and_alerts_need(client: Client) -> None:
    names = {name for name, _ in client.series()}
    expected = {
        "records", "endpoints", "duplicate_endpoints", "records_poisoned", "schedules",
        "schedule_health_score", "schedule_load_ratio", "schedule_capacity", "schedule_unbalanced",
        "schedules_overdue", "schedule_firings_total", "beats_live", "workers",
        "workers_expected", "queue_messages", "threshold", "build_info", "store_up",
        "collector_success",
    }  # fmt: skip
    assert {f"idemwatch_{name}" for name in expected} <= names


def test_thresholds_are_those_that_were_chosen(settings: Settings) -> None:
    chosen = Thresholds(hit_rate=0.1, hotspots=7)
    with open_exporter(settings, Options(thresholds=chosen)) as running:
        found = running.series()
    told = {
        dict(labels)["name"]: number
        for (name, labels), number in found.items()
        if name == "idemwatch_threshold"
    }
    constants = {"hot": HOT, "busy": BUSY, "quiet": QUIET}
    assert told == {**dataclasses.asdict(chosen), **constants}


@pytest.mark.parametrize("version", ["abc", "2.0.0", "1.0.0", ""])
def test_an_odd_wish_for_a_version_gets_one_that_is_written(client: Client, version: str) -> None:
    status, text = client.get(Accept=f"application/openmetrics-text; version={version}")
    assert status == 200 and "idemwatch_collector_success" in text
    assert text.endswith("# EOF\n") == (version != "abc")


@pytest.mark.parametrize("openmetrics", [False, True], ids=["plain", "openmetrics"])
def test_the_whole_exposition_can_be_read(client: Client, openmetrics: bool) -> None:
    _, text = client.get(Accept=OPENMETRICS if openmetrics else "text/plain")
    assert text.endswith("# EOF\n") == openmetrics
    found = series(text, openmetrics=openmetrics)
    assert value(found, "store_up", store="postgres") == 1
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names)), "a family stands in one place"


def test_promtool_finds_nothing_to_say(client: Client) -> None:
    _, text = client.get()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_family_has_a_help(client: Client) -> None:
    _, text = client.get()
    helps = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# HELP ")]
    assert helps
    assert [words for words in helps if len(words) < 4 or not words[3].strip()] == []


def test_probes_and_links(client: Client) -> None:
    assert client.get("/-/healthy") == (200, "healthy\n")
    assert client.get("/-/ready") == (200, "ready\n")
    status, page = client.get("/")
    assert status == 200
    for path in ("/metrics", "/-/healthy", "/-/ready", "/sd"):
        assert f'href="{path}"' in page


def test_registered_workers_are_found_by_prometheus(client: Client, settings: Settings) -> None:
    assert settings.redis_url is not None
    directory = WorkerDirectory(RedisLink.from_url(settings.redis_url), settings.namespace)
    directory.register(Facts("celery@one", "10.0.0.1:9912", "http", 3, "i1"))
    wait_until(lambda: "10.0.0.1:9912" in client.get("/sd")[1])
    status, body = client.get("/sd")
    assert status == 200
    assert json.loads(body)[0]["targets"] == ["10.0.0.1:9912"]
    wait_until(lambda: _capacity(client.series()) == ("workers", 3.0))
    directory.close()


def _capacity(found: Series) -> tuple[str, float]:
    ((labels, number),) = [
        (dict(labels), number)
        for (name, labels), number in found.items()
        if name == "idemwatch_schedule_capacity"
    ]
    return labels["source"], number


@pytest.mark.parametrize(
    ("given", "setting", "expected"),
    [(5.0, 9, ("option", 5.0)), (None, 9, ("setting", 9.0)), (None, None, ("default", 14.0))],
)
def test_capacity_without_workers(
    redis_url: str, given: float | None, setting: int | None, expected: tuple[str, float]
) -> None:
    settings = Settings(redis_url=redis_url, schedule_capacity=setting)
    capacity = WorkerCapacity(given, None, settings)()
    assert (capacity.source, capacity.slots) == expected


def test_capacity_is_that_of_before_while_redis_is_away(redis_url: str) -> None:
    now = [0.0]
    directory = WorkerDirectory(RedisLink.from_url(redis_url), "n")
    directory.register(Facts("celery@one", None, "http", 3, "i1"))
    directory.register(Facts("celery@two", None, "http", 4, "i2"))
    workers = WorkerCollector(directory, clock=lambda: now[0])
    capacity = WorkerCapacity(None, workers, Settings(redis_url=redis_url))
    workers.collect()
    assert capacity().slots == 7
    now[0] = 1000.0
    assert workers.listed() is None
    assert capacity().slots == 7
    directory.close()


def test_what_is_not_configured_has_no_collector(redis_url: str, database_url: str) -> None:
    with open_exporter(Settings(redis_url=redis_url)) as running:
        assert set(running.success()) == OF_REDIS
    with open_exporter(Settings(database_url=database_url)) as running:
        assert set(running.success()) == OF_POSTGRES
        status, text = running.get("/sd")
        assert status == 503
        assert "IDEMWATCH_REDIS_URL" in text
    with open_exporter(Settings(), Options(broker_url=redis_url)) as running:
        assert set(running.success()) == OF_BROKER


def test_nothing_to_look_at_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"IDEMWATCH_DATABASE_URL.*--broker-url"):
        State(Settings(), Options())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"source": "table"}, "IDEMWATCH_DATABASE_URL"),
        ({"source": "beat"}, "celery -A proj"),
        ({"source": "redbeat"}, "celery -A proj"),
        ({"source": "csv:-"}, "read only once"),
        ({"source": "no-such-file.csv"}, "no file"),
        ({"zone": "Mars/Olympus"}, "no such IANA zone"),
        ({"broker_url": "nonsense://u:s3cret@host"}, "--broker-url"),
        ({"broker_url": "redis://u:s3cret@host:port/0"}, "--broker-url"),
    ],
)
def test_what_can_never_work_is_an_error_at_start(
    redis_url: str, changed: dict[str, str], told: str
) -> None:
    with pytest.raises(IdempotencyError, match=told) as caught:
        State(Settings(redis_url=redis_url), Options(**changed))  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_an_app_brings_its_schedules_broker_and_queues(redis_url: str) -> None:
    app = Celery("tests.exported", broker=redis_url, set_as_current=False)
    app.conf.beat_schedule = {"nightly": {"task": "t.nightly", "schedule": 60.0}}
    app.conf.task_queues = {"fast": {"exchange": "fast"}, "slow": {"exchange": "slow"}}
    with open_exporter(Settings(), Options(refresh_seconds=1), app) as running:
        wait_until(running.healthy)
        found = running.series()
    assert value(found, "schedules", status="active") == 1
    assert value(found, "queue_messages", queue="fast") == 0
    assert value(found, "queue_messages", queue="slow") == 0


def test_schedules_of_a_file_need_no_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("schedules") / "jobs.crontab"
    path.write_text("*/5 * * * * run-it\n")
    with open_exporter(Settings(), Options(source=f"crontab:{path}")) as running:
        wait_until(running.healthy)
        assert set(running.success()) == {"schedules"}
        assert value(running.series(), "schedules", status="active") == 1


def test_a_database_that_is_not_migrated_is_up_and_not_ready(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_exporter(Settings(database_url=empty_database_url)) as running:
        wait_until(lambda: value(running.series(), "store_up", store="postgres") == 1)
        wait_until(lambda: "its first refresh" not in running.get("/-/ready")[1])
        status, text = running.get("/-/ready")
        success = running.success()
    assert (success["postgres"], success["records"], success["beats"]) == (1, 0, 0)
    assert status == 503
    assert "records: " in text and "idemwatch db upgrade" in text
    assert "PostgreSQL answers, but the database is not migrated" in caplog.text
