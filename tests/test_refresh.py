"""Collectors in the background: what a scrape is told while they succeed, fail, hang and age."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from idemwatch.exporter.exposition import Exposition
from idemwatch.exporter.refresh import LEAST_KEPT_SECONDS, Refresher
from idemwatch.exporter.snapshot import MOST_OF_COLLECTOR, MOST_OF_FAMILY
from idemwatch.idempotency.errors import StoreUnavailable
from prometheus_client.metrics_core import Metric
from support.exporters import Fake, Series, gauge, series, value
from support.stores import DEADLINE_SECONDS, wait_until

INTERVAL = 15.0
AWAY = StoreUnavailable("postgres", "it does not answer")


class Clock:
    """A monotonic clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake() -> Iterator[Fake]:
    one = Fake(families=[gauge("idemwatch_thing", {"a": 1})])
    one.instead = [gauge("idemwatch_up", {"fake": 0})]
    yield one
    one.goes_on.set()


@pytest.fixture
def refresher(fake: Fake, clock: Clock) -> Refresher:
    return Refresher(fake, interval_seconds=INTERVAL, clock=clock)


@pytest.fixture
def hung(fake: Fake, refresher: Refresher, clock: Clock) -> Iterator[Refresher]:
    """One whose source has not answered for 31 s of the clock."""
    fake.goes_on.clear()
    refresher.start()
    assert fake.entered.wait(DEADLINE_SECONDS)
    clock.now += 31
    yield refresher
    fake.goes_on.set()
    refresher.close(DEADLINE_SECONDS)


def seen(*refreshers: Refresher) -> Series:
    return series(Exposition(refreshers).text().decode())


def told(refresher: Refresher, name: str = "thing", **labels: str) -> float | None:
    return value(seen(refresher), name, **(labels or {"n": "a"}))


def succeeds(refresher: Refresher) -> bool:
    return told(refresher, "collector_success", collector=refresher.name) == 1


def test_before_its_first_refresh_a_collector_is_told_as_0_and_nothing_else(
    refresher: Refresher,
) -> None:
    found = seen(refresher)
    for name in ("success", "duration_seconds", "last_success_timestamp_seconds"):
        assert value(found, f"collector_{name}", collector="fake") == 0, name
    assert value(found, "up", n="fake") is None, "nobody knows yet whether it is away"
    assert Exposition([refresher]).problems() == ["fake: its first refresh has not ended yet"]


def test_a_good_refresh_is_told(refresher: Refresher) -> None:
    refresher.refresh()
    assert succeeds(refresher)
    assert told(refresher) == 1
    at = told(refresher, "collector_last_success_timestamp_seconds", collector="fake")
    assert at is not None
    assert abs(at - time.time()) < 60
    assert Exposition([refresher]).problems() == []


def test_a_failure_is_told_at_once_and_the_last_good_snapshot_until_it_is_old(
    refresher: Refresher, fake: Fake, clock: Clock
) -> None:
    refresher.refresh()
    fake.error = AWAY
    refresher.refresh()
    assert not succeeds(refresher)
    assert told(refresher) == 1
    assert told(refresher, "up", n="fake") == 0
    clock.now += LEAST_KEPT_SECONDS - 1
    assert told(refresher) == 1
    clock.now += 2
    assert told(refresher) is None
    assert told(refresher, "up", n="fake") == 0


def test_what_is_told_instead_replaces_what_was_told_before(
    refresher: Refresher, fake: Fake
) -> None:
    fake.families = [gauge("idemwatch_up", {"fake": 1}), gauge("idemwatch_thing", {"a": 1})]
    refresher.refresh()
    assert told(refresher, "up", n="fake") == 1
    fake.error = AWAY
    refresher.refresh()
    assert (told(refresher, "up", n="fake"), told(refresher)) == (0, 1)


def test_a_source_that_is_back_is_told_again(refresher: Refresher, fake: Fake) -> None:
    fake.error = AWAY
    refresher.refresh()
    fake.error = None
    refresher.refresh()
    assert succeeds(refresher)
    assert told(refresher, "up", n="fake") is None


def test_one_that_hangs_has_failed_once_its_deadline_is_over(hung: Refresher, clock: Clock) -> None:
    assert not succeeds(hung)
    assert told(hung, "up", n="fake") == 0
    assert told(hung, "collector_duration_seconds", collector="fake") == 31
    clock.now -= 2
    assert told(hung, "up", n="fake") is None, "the deadline is not over"


def test_one_that_hangs_goes_on_by_itself(hung: Refresher, fake: Fake) -> None:
    fake.goes_on.set()
    wait_until(lambda: succeeds(hung))
    assert told(hung) == 1


def test_a_scrape_does_not_wait_for_one_that_hangs(hung: Refresher) -> None:
    other = Refresher(Fake("other", [gauge("idemwatch_other", {"a": 7})]))
    other.refresh()
    began = time.monotonic()
    found = seen(hung, other)
    assert time.monotonic() - began < 0.5
    assert value(found, "other", n="a") == 7


def test_closing_waits_for_one_that_hangs_no_longer_than_it_is_told_to(
    hung: Refresher, fake: Fake
) -> None:
    began = time.monotonic()
    hung.close(0.1)
    assert time.monotonic() - began < 2
    assert fake.closed == 1


def test_closing_ends_the_thread(fake: Fake) -> None:
    exposition = Exposition([Refresher(fake, interval_seconds=300)])
    exposition.start()
    wait_until(lambda: fake.asked == 1)
    began = time.monotonic()
    exposition.close()
    assert time.monotonic() - began < 2
    assert fake.closed == 1


def test_first_refreshes_run_side_by_side(fake: Fake) -> None:
    other = Fake("other")
    for one in (fake, other):
        one.goes_on.clear()
    exposition = Exposition([Refresher(fake), Refresher(other)])
    exposition.start()
    assert fake.entered.wait(DEADLINE_SECONDS)
    assert other.entered.wait(DEADLINE_SECONDS)
    other.goes_on.set()
    fake.goes_on.set()
    wait_until(lambda: not exposition.problems())
    exposition.close()


@pytest.mark.parametrize(
    ("takes", "fails", "pause"),
    [
        (0.1, False, INTERVAL),
        (3.0, False, 30.0),
        (29.0, False, 290.0),
        (29.0, True, 60.0),
        (40.0, False, INTERVAL),
        (40.0, True, INTERVAL),
    ],
    ids=["quick", "slow", "very slow", "slow to fail", "hung", "hung and failed"],
)
def test_a_slow_source_is_asked_seldom(
    fake: Fake, clock: Clock, takes: float, fails: bool, pause: float
) -> None:
    def collect() -> Iterable[Metric]:
        clock.now += takes
        if fails:
            raise AWAY
        return ()

    refresher = Refresher(_Slow(collect), interval_seconds=INTERVAL, clock=clock)
    refresher.refresh()
    assert refresher.pause_seconds == pytest.approx(pause)


class _Slow(Fake):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        super().__init__()
        self.collect = collect  # type: ignore[method-assign]


def test_a_pause_is_never_longer_than_five_minutes(clock: Clock) -> None:
    def collect() -> Iterable[Metric]:
        clock.now += 100
        return ()

    refresher = Refresher(_Slow(collect), interval_seconds=100, clock=clock)
    refresher.refresh()
    assert refresher.pause_seconds == 300


def test_a_slow_source_is_not_old_before_its_next_refresh_has_ended(clock: Clock) -> None:
    def collect() -> Iterable[Metric]:
        clock.now += 20
        return [gauge("idemwatch_thing", {"a": 1})]

    refresher = Refresher(_Slow(collect), interval_seconds=INTERVAL, clock=clock)
    refresher.refresh()
    clock.now += refresher.pause_seconds + 20
    assert succeeds(refresher)
    assert told(refresher) == 1


def test_a_collector_whose_thread_is_gone_grows_old(refresher: Refresher, clock: Clock) -> None:
    refresher.refresh()
    clock.now += LEAST_KEPT_SECONDS + 1
    assert not succeeds(refresher)
    assert told(refresher) is None
    assert "its last refresh is old" in Exposition([refresher]).problems()[0]


def test_families_of_one_name_are_told_as_one(fake: Fake, refresher: Refresher) -> None:
    other = Refresher(Fake("other", [gauge("idemwatch_thing", {"b": 2})]))
    refresher.refresh()
    other.refresh()
    text = Exposition([refresher, other]).text().decode()
    assert text.count("# TYPE idemwatch_thing gauge") == 1
    assert 'idemwatch_thing{n="a"} 1.0\nidemwatch_thing{n="b"} 2.0\n' in text


def test_a_label_that_is_no_text_costs_its_collector_and_not_the_scrape(
    fake: Fake, refresher: Refresher
) -> None:
    other = Refresher(Fake("other", [gauge("idemwatch_other", {"a": 7})]))
    fake.families = [gauge("idemwatch_thing", {"\ud800": 1})]
    for one in (refresher, other):
        one.refresh()
    found = seen(refresher, other)
    assert value(found, "collector_success", collector="fake") == 0
    assert value(found, "other", n="a") == 7


def test_labels_of_strangers_are_escaped(fake: Fake, refresher: Refresher) -> None:
    nasty = 'a"b\\c\nidemwatch_evil 1\r\n# EOF'
    fake.families = [gauge("idemwatch_thing", {nasty: 1})]
    refresher.refresh()
    for openmetrics in (False, True):
        text = Exposition([refresher]).text(openmetrics=openmetrics).decode()
        assert "\nidemwatch_evil" not in text
        assert 'a\\"b\\\\c\\n' in text
        assert text.count("\n# EOF\n") == openmetrics


def test_a_family_is_capped_and_says_so(fake: Fake, refresher: Refresher) -> None:
    fake.families = [gauge("idemwatch_thing", {str(n): n for n in range(MOST_OF_FAMILY + 7)})]
    refresher.refresh()
    refresher.refresh()
    found = seen(refresher)
    assert sum(name == "idemwatch_thing" for name, _ in found) == MOST_OF_FAMILY
    assert value(found, "series_dropped_total", metric="idemwatch_thing") == 14


def test_a_collector_is_capped(fake: Fake, refresher: Refresher) -> None:
    families = MOST_OF_COLLECTOR // MOST_OF_FAMILY + 1
    values = {str(n): float(n) for n in range(MOST_OF_FAMILY)}
    fake.families = [gauge(f"idemwatch_thing{n}", values) for n in range(families)]
    refresher.refresh()
    found = seen(refresher)
    assert sum(name.startswith("idemwatch_thing") for name, _ in found) == MOST_OF_COLLECTOR
    last = f"idemwatch_thing{families - 1}"
    assert value(found, "series_dropped_total", metric=last) == MOST_OF_FAMILY


def test_a_series_that_comes_twice_is_told_once(fake: Fake, refresher: Refresher) -> None:
    fake.families = [gauge("idemwatch_thing", {"a": 1}), gauge("idemwatch_thing", {"a": 2, "b": 3})]
    refresher.refresh()
    text = Exposition([refresher]).text().decode()
    assert text.count("# TYPE idemwatch_thing gauge") == 1
    assert text.count('idemwatch_thing{n="a"}') == 1
    assert value(series(text), "thing", n="b") == 3


def test_what_a_collector_changes_later_is_not_told(fake: Fake, refresher: Refresher) -> None:
    family = gauge("idemwatch_thing", {"a": 1})
    fake.families = [family]
    refresher.refresh()
    family.add_metric(["b"], 2)
    assert told(refresher, n="b") is None


def test_only_changes_are_logged(
    refresher: Refresher, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "idemwatch")
    for error in (None, None, AWAY, AWAY, AWAY, None, None):
        fake.error = error
        refresher.refresh()
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2, texts
    assert texts[0].startswith("collector fake fails")
    assert texts[0].endswith("postgres is unavailable: it does not answer")
    assert texts[1] == "collector fake is back"


def test_a_hang_is_logged_once_and_its_end_too(
    hung: Refresher, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "idemwatch")
    for _ in range(3):
        hung.watch()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no answer for 31 s" in caplog.text
    fake.goes_on.set()
    wait_until(lambda: "collector fake is back" in caplog.text)


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("redis", "cannot reach redis://user:s3cret@host:1/0"),
        StoreUnavailable("redis", "cannot reach redis://user:p@s3cret@host:1/0"),
        StoreUnavailable("postgres", "host=h password=s3cret user=u"),
        ValueError("amqp://u:s3cret@host// has it, and s3cret"),
    ],
)
def test_a_secret_is_neither_logged_nor_told(
    refresher: Refresher, fake: Fake, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.error = error
    refresher.refresh()
    problems = Exposition([refresher]).problems()
    assert len(problems) == 1 and problems[0].startswith("fake: ")
    assert "collector fake" in caplog.text
    for text in (caplog.text, *problems, Exposition([refresher]).text().decode()):
        assert "s3cret" not in text


def test_an_unforeseen_error_says_where_it_came_from(
    refresher: Refresher, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.error = KeyError("x")
    refresher.refresh()
    assert "unforeseen KeyError" in caplog.text
    assert "in collect" in caplog.text, "the traceback"


def test_an_app_that_calls_exit_ends_no_refresher(
    refresher: Refresher, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.error = SystemExit(1)
    refresher.refresh()
    assert "unforeseen SystemExit" in (refresher.seen().problem or "")
    assert "collector fake failed" in caplog.text
