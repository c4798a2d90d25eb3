"""The demo as a user runs it: it counts truly, and leaves neither a process nor a file behind."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from idemwatch.demo.scoreboard import Row, read
from idemwatch.demo.summary import Summary
from idemwatch.demo.trouble import TASKS
from idemwatch.demo.verdict import Verdict, judge
from support.demo_run import Demo, ended, start_demo, within

pytestmark = pytest.mark.worker


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start the demo with some arguments and environment."""
    with ExitStack() as stack:
        yield lambda *arguments, **environment: stack.enter_context(
            ended(start_demo(tmp_path, *arguments, **environment))
        )


def test_each_effect_happens_once_and_nothing_is_left(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    running = demo("--seconds", "4", "--json", "out.json")
    code, out, err = running.end()
    assert (code, err) == (0, ""), out
    counted = json.loads((tmp_path / "out.json").read_text())
    assert counted["effects_twice"] == counted["effects_lost"] == 0
    assert counted["effects_once"] == counted["works"] > 0
    for name in ("redelivered", "turned_away", "met_running", "killed"):
        assert counted[name] > 0, name
    assert counted["executed"] >= counted["works"]
    assert all(counted["tasks"][name] > 0 for name in TASKS), counted["tasks"]
    assert counted["messages"] > counted["works"]
    assert f"{counted['works']} happened once, 0 more than once, 0 never" in out
    assert running.leftovers() == []


def test_ctrl_c_ends_it_with_a_summary(demo: Callable[..., Demo]) -> None:
    running = demo()
    with within(running):
        running.wait_for_line("publishing")
        running.wait_for_line("publishing")
    running.interrupt()
    code, out, _ = running.end()
    assert code == 0
    assert "0 more than once, 0 never" in out
    assert running.leftovers() == []


def test_ctrl_c_in_the_middle_of_an_outage_ends_it_and_says_what_did_not_come(
    demo: Callable[..., Demo],
) -> None:
    running = demo("--scenario", "redis-outage")
    with within(running):
        running.wait_for_line("Redis hangs")
    running.interrupt()
    code, out, err = running.end()
    assert (code, err) == (1, "")
    assert "the alert StoreDown was not delivered in time" in out
    assert "0 more than once, 0 never" in out
    assert running.leftovers() == []


def test_a_signal_while_all_beats_hang_leaves_nothing(demo: Callable[..., Demo]) -> None:
    running = demo("--scenario", "beat-stall")
    with within(running):
        running.wait_for_line("all beats hang")
    running.process.send_signal(signal.SIGTERM)
    code, _, err = running.end()
    assert code == 128 + signal.SIGTERM
    assert "nothing was counted" in err
    assert running.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment", ["starting PostgreSQL", "starting a worker", "starting Prometheus"]
)
def test_a_signal_while_it_starts_leaves_nothing(
    demo: Callable[..., Demo], moment: str, number: signal.Signals
) -> None:
    running = demo()
    with within(running):
        running.wait_for_line(moment)
    running.process.send_signal(number)
    code, _, err = running.end()
    assert code == 128 + number
    assert "nothing was counted" in err
    assert running.leftovers() == []


def test_the_servers_of_the_user_are_left_as_they_were(
    demo: Callable[..., Demo], redis_url: str, empty_database_url: str
) -> None:
    with (
        redis.Redis.from_url(redis_url) as client,
        psycopg.connect(empty_database_url, autocommit=True) as connection,
    ):
        client.set("mine", "stays")
        connection.execute("CREATE TABLE mine ()")
        running = demo(
            "--seconds",
            "1",
            IDEMWATCH_REDIS_URL=redis_url,
            IDEMWATCH_DATABASE_URL=empty_database_url,
        )
        code, out, err = running.end()
        assert code == 0, (out, err)
        assert client.keys() == [b"mine"]
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert tables == [("public", "mine")]
    assert running.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--seconds", "0"], {}, "--seconds"),
        (["--metrics-port", "99999"], {}, "--metrics-port"),
        (["--json", "nowhere/out.json"], {}, "no folder"),
        (["--seconds", "nan"], {}, "is no number"),
        (["--second", "1"], {}, "--second"),
        (["--scenario", "flood"], {}, "duplicate-storm"),
        (
            ["--scenario", "redis-outage"],
            {"IDEMWATCH_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"},
            "IDEMWATCH_REDIS_URL",
        ),
        (["--scenario", "calm"], {"PATH": "/nowhere"}, "prometheus prometheus-alertmanager"),
        ([], {"IDEMWATCH_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "IDEMWATCH_REDIS_URL"),
        ([], {"IDEMWATCH_REDIS_URL": "http://127.0.0.1:1/0"}, "redis://"),
        (
            [],
            {"IDEMWATCH_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"},
            "IDEMWATCH_DATABASE_URL",
        ),
    ],
)
def test_wrong_options_and_settings_are_named(
    demo: Callable[..., Demo], arguments: list[str], environment: dict[str, str], told: str
) -> None:
    running = demo(*arguments, **environment)
    code, _, err = running.end()
    assert code == 2
    assert told in err
    assert "hunter2" not in err
    assert "Traceback" not in err
    assert running.leftovers() == []


def test_without_prometheus_it_says_what_to_install_and_goes_on(
    demo: Callable[..., Demo], redis_url: str, empty_database_url: str
) -> None:
    servers = {"IDEMWATCH_REDIS_URL": redis_url, "IDEMWATCH_DATABASE_URL": empty_database_url}
    code, out, err = demo("--seconds", "1", PATH="/nowhere", **servers).end()
    assert (code, err) == (0, ""), out
    wanted = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"
    assert out.count(wanted) == 1
    assert "0 more than once, 0 never" in out


def test_the_judge_finds_doubles_and_losses() -> None:
    verdict = judge(["a", "b", "c"], {"a": 1, "b": 2, "unexpected": 2})
    assert verdict == Verdict(once=1, twice=("b", "unexpected"), lost=("c",))


@pytest.mark.parametrize(
    ("verdict", "good"),
    [
        (Verdict(1, (), ()), True),
        (Verdict(1, ("b",), ()), False),
        (Verdict(1, (), ("c",)), False),
    ],
)
def test_a_double_or_a_loss_spoils_the_summary(verdict: Verdict, good: bool) -> None:
    row = Row("all", executed=3, turned_away=1, met_running=0, checks=4)
    summary = Summary.of(row, verdict, seconds=1.0, messages=4, redelivered=1, killed=0)
    assert summary.good is good
    assert summary.hit_rate == 0.25
    for name in (*verdict.twice, *verdict.lost):
        assert f": {name}" in str(summary)


def test_mail_that_went_out_again_is_told_and_is_no_double() -> None:
    row = Row("all", executed=3, turned_away=1, met_running=0, checks=4)
    verdict = Verdict(1, (), ())
    summary = Summary.of(
        row, verdict, seconds=1.0, messages=4, redelivered=1, killed=0, mails_again=2
    )
    assert summary.good
    assert "2 mails were sent again after a lost lease, with the Message-ID they had" in str(
        summary
    )


def test_the_table_shows_what_the_metrics_say() -> None:
    score = read(
        'idemwatch_claims_total{task="t",scope="global",outcome="granted"} 3\n'
        'idemwatch_claims_total{task="t",scope="global",outcome="duplicate"} 1\n'
        'idemwatch_claims_total{task="t",scope="global",outcome="running"} 2\n'
    )
    assert score.counts == Counter(
        {("t", "granted"): 3, ("t", "duplicate"): 1, ("t", "running"): 2}
    )
    assert score.total().hit_rate == 0.5
