"""Slot-kept metrics: exact over children that come, go and are killed, in files that stay few."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from idemwatch.idempotency import slots
from idemwatch.idempotency.slots import REGISTRY, SlotCounter, SlotGauge, SlotHistogram
from prometheus_client import Counter, generate_latest
from prometheus_client import values as host_values
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    slots.merge_from(tmp_path)
    yield tmp_path
    slots.merge_from(None)


@pytest.fixture
def name() -> str:
    return f"test_{uuid4().hex}"


def child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child, which then ends without any clean-up; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def counted(directory: Path, slot: str, work: Callable[[], None]) -> None:
    def run() -> None:
        slots.bind(directory, slot)
        work()

    assert child(run) == 0


def value(sample: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(sample, labels)


def test_recycled_children_keep_exact_totals_in_few_files(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x", ("task",))
    seconds = SlotHistogram(f"{name}_seconds", "x", buckets=(1, 5))
    counter.labels("a")

    def work() -> None:
        counter.labels("a").inc()
        counter.labels("only-in-children").inc(2)
        seconds.observe(3)

    for number in range(120):
        counted(directory, str(number % 4), work)
    assert value(f"{name}_total", task="a") == 120
    assert value(f"{name}_total", task="only-in-children") == 240
    assert value(f"{name}_seconds_sum") == 360
    assert value(f"{name}_seconds_bucket", le="1.0") == 0
    assert value(f"{name}_seconds_bucket", le="5.0") == 120
    assert value(f"{name}_seconds_count") == 120
    files = sorted(path.name for path in directory.iterdir())
    assert files == ["0.db", "1.db", "2.db", "3.db"]
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 4 * 65536


def test_a_killed_child_loses_nothing(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")

    def work() -> None:
        slots.bind(directory, "0")
        counter.inc(7)
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(child(work)) == signal.SIGKILL
    assert value(f"{name}_total") == 7
    counted(directory, "0", counter.inc)
    assert value(f"{name}_total") == 8


def test_a_dead_childs_gauge_ends_when_its_slot_is_taken(directory: Path, name: str) -> None:
    pending = SlotGauge(f"{name}_pending", "x", merge="sum")
    is_open = SlotGauge(f"{name}_open", "x", ("store",), merge="max")

    def work() -> None:
        pending.set(5)
        is_open.labels("redis").set(1)

    counted(directory, "0", work)
    counted(directory, "1", work)
    assert value(f"{name}_pending") == 10
    assert value(f"{name}_open", store="redis") == 1
    counted(directory, "0", lambda: None)
    assert value(f"{name}_pending") == 5
    assert value(f"{name}_open", store="redis") == 1
    counted(directory, "1", lambda: None)
    assert value(f"{name}_pending") == 0
    assert value(f"{name}_open", store="redis") == 0


def test_a_child_starts_without_its_parents_counts(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")
    counter.inc(100)
    counted(directory, "0", counter.inc)
    assert value(f"{name}_total") == 101


def test_what_is_counted_between_fork_and_bind_is_kept_once(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")

    def work() -> None:
        counter.inc(3)
        slots.bind(directory, "0")
        slots.bind(directory, "0")
        counter.inc(4)

    assert child(work) == 0
    assert value(f"{name}_total") == 7


def test_a_grandchild_never_writes_to_its_parents_slot(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")

    def work() -> None:
        counter.inc()
        assert child(counter.inc) == 0
        counter.inc()

    counted(directory, "0", work)
    assert value(f"{name}_total") == 2


def test_a_lock_held_at_the_fork_does_not_stop_the_child(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x", ("task",))
    counter.labels("a")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with slots._slots.lock, counter._lock, REGISTRY._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)

    def work() -> None:
        signal.alarm(20)
        counter.labels("a").inc()
        assert value(f"{name}_total", task="a") == 1

    try:
        counted(directory, "0", work)
    finally:
        done.set()
        thread.join()


def test_threads_count_exactly_while_scraped(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x", ("n",))

    def many() -> None:
        def count() -> None:
            for number in range(2000):
                counter.labels(str(number % 50)).inc()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    counted(directory, "0", many)
    assert sum(value(f"{name}_total", n=str(n)) or 0 for n in range(50)) == 8000


def test_a_scrape_survives_files_in_any_state(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")
    counted(directory, "0", counter.inc)
    whole = (directory / "0.db").read_bytes()
    (directory / "1.db").write_bytes(b"")
    (directory / "2.db").write_bytes(b"\0" * 65536)
    (directory / "3.db").write_bytes(whole[:30])
    (directory / "4.db").write_bytes(b"\xff\xff\xff\x7f" + os.urandom(5000))
    (directory / "5.db").mkdir()
    (directory / "6.db").symlink_to(directory / "nowhere")
    assert value(f"{name}_total") == 1
    generate_latest(REGISTRY)


def test_a_scrape_survives_a_file_that_grows(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x", ("n",))
    pid = os.fork()
    if pid == 0:
        slots.bind(directory, "0")
        for number in range(3000):
            counter.labels(f"{number}" + "x" * 50).inc()
        os._exit(0)
    seen = -1
    while True:
        total = sum(s.value for m in REGISTRY.collect() for s in m.samples if m.name == name)
        assert total >= seen
        seen = int(total)
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            break
    assert (directory / "0.db").stat().st_size > 65536
    total = sum(s.value for m in REGISTRY.collect() for s in m.samples if m.name == name)
    assert total == 3000


def test_a_damaged_slot_starts_anew(directory: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")
    (directory / "0.db").write_bytes(b"\xff\xff\xff\x7f" + os.urandom(5000))
    counted(directory, "0", counter.inc)
    assert value(f"{name}_total") == 1


def test_a_missing_directory_stops_nobody_from_counting(tmp_path: Path, name: str) -> None:
    counter = SlotCounter(f"{name}_total", "x")

    def work() -> None:
        slots.bind(tmp_path / "missing", "0")
        counter.inc()
        assert value(f"{name}_total") == 1

    assert child(work) == 0


def test_a_full_disk_stops_nobody_from_counting(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SlotCounter(f"{name}_total", "x", ("n",))

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    def work() -> None:
        slots.bind(directory, "0")
        monkeypatch.setattr(os, "posix_fallocate", full)
        for number in range(3000):
            counter.labels(str(number)).inc()

    assert child(work) == 0
    total = sum(s.value for m in REGISTRY.collect() for s in m.samples if m.name == name)
    assert 0 < total < 3000


def test_series_are_there_at_zero(name: str) -> None:
    SlotCounter(f"{name}_total", "x", ("task",)).labels("a")
    SlotHistogram(f"{name}_seconds", "x", ("task",), buckets=(1,)).labels("a")
    assert value(f"{name}_total", task="a") == 0
    assert value(f"{name}_seconds_bucket", task="a", le="+Inf") == 0
    assert value(f"{name}_seconds_count", task="a") == 0


def test_a_name_is_declared_once(name: str) -> None:
    SlotCounter(f"{name}_total", "x")
    with pytest.raises(ValueError, match="declared twice"):
        SlotCounter(f"{name}_total", "x")


def test_the_hosts_own_metrics_stay_its_own(directory: Path, name: str) -> None:
    class_before = host_values.ValueClass
    ours = SlotCounter(f"{name}_total", "x")
    theirs = Counter(f"host_{name}_total", "x")

    def work() -> None:
        ours.inc()
        theirs.inc()
        assert type(theirs._value) is class_before

    counted(directory, "0", work)
    assert host_values.ValueClass is class_before
    assert theirs._value.get() == 0
    assert name.encode() not in generate_latest().replace(f"host_{name}".encode(), b"")
    assert f"host_{name}".encode() not in generate_latest(REGISTRY)


def test_both_formats_can_be_written(directory: Path) -> None:
    assert generate_latest(REGISTRY)
    text: bytes = openmetrics(REGISTRY)  # type: ignore[no-untyped-call]
    assert text.endswith(b"# EOF\n")
