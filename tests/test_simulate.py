"""`idemwatch simulate` on real workers: plain Celery doubles, idemwatch does not."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis
from celery import Celery
from idemwatch.demo.servers import RedisServer
from idemwatch.demo.simulate_calls import sample_calls
from idemwatch.demo.simulate_judge import failures, judge
from idemwatch.demo.simulate_plan import Options, plan
from idemwatch.demo.simulate_play import nothing, play
from idemwatch.demo.simulate_proxy import Relay
from idemwatch.demo.simulate_redirect import Servers, check, redirect
from idemwatch.demo.simulate_stage import PLAIN, set_stage
from idemwatch.demo.simulate_tasks import KINDS
from idemwatch.idempotency.errors import ConfigurationError
from support.simulate_run import simulation
from support.stores import wait_until

CELERY = str(Path(sys.executable).with_name("celery"))
OURS = Servers(
    broker_url="redis://127.0.0.1:15999/0",
    backend_url="redis://127.0.0.1:15999/1",
    redis_url="redis://127.0.0.1:15999/2",
    database_url="postgresql://user@127.0.0.1:15998/place",
    ledger_url="postgresql://user@127.0.0.1:15997/place",
)
USERS_APP = """
import os
from pathlib import Path
from celery import Celery
from idemwatch.idempotency import IdempotencyService, IdempotentTask

class Production:
    CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    CELERY_BROKER_WRITE_URL = "redis://127.0.0.1:1/0"
    CELERY_IDEMPOTENCY_REDIS_URL = "redis://127.0.0.1:1/2"
    CELERY_IDEMPOTENCY_DATABASE_URL = "postgresql://127.0.0.1:1/production"
    CELERY_TASK_ROUTES = {"proj.close": {"queue": "slow"}}

app = Celery("proj", backend="redis://127.0.0.1:1/3")
app.config_from_object(Production, namespace="CELERY")
service = IdempotencyService.from_app(app)
app.backend, app.amqp.queues

def write(event):
    with Path(os.environ["BOOK"]).open("a") as book:
        book.write(f"{event}\\n")

@app.task(base=IdempotentTask, bind=True, idempotency_enabled=True, idempotency_lease=600)
def close(self, job, day):
    with service.once(f"step:{job}") as step:
        step.result = day
    write(f"close {job}")
    follow.delay(job)

@app.task
def follow(job):
    write(f"follow {job}")
"""


@pytest.mark.worker
def test_plain_celery_doubles_effects_and_idemwatch_does_not(tmp_path: Path) -> None:
    asked = ("--seed", "1", "--works", "30", "--kills", "0.2")
    with simulation(tmp_path, *asked, "--json", "out.json") as running:
        code, out, err = running.end()
        assert (code, err) == (0, ""), out
        assert running.leftovers() == []
    told = json.loads((tmp_path / "out.json").read_text())
    plain, ours = told["sides"]["plain"], told["sides"]["idemwatch"]
    assert plain["doubled"] > 0 and plain["ran_twice"] > 0
    assert (ours["doubled"], ours["ran_twice"], ours["ran_at_once"], ours["lost"]) == (0, 0, 0, 0)
    fates = ("once", "repeated_after_death", "lost_by_broker")
    assert sum(ours[fate] for fate in fates) == ours["works"] == 30
    for name in ("turned_away", "taken_over", "killed", "redelivered"):
        assert ours[name] > 0, name
    assert plain["messages"] == ours["messages"] > 30
    assert out.rstrip().endswith(f"the same again: idemwatch simulate {shlex.join(asked)}")


@pytest.mark.worker
def test_what_plain_celery_does_would_fail_if_idemwatch_did_it() -> None:
    made = plan(2, Options(seconds=2, works=12, duplicates=1, kills=0, redelivery=0, outages=0))
    with set_stage() as stage, stage.place(PLAIN) as place:
        verdict = judge(play(place, made, sample_calls(made, KINDS), None, nothing))
    assert verdict.counts["doubled"] > 0
    told = failures(verdict, verdict)
    assert any(sentence.startswith("idemwatch doubled") for sentence in told), told
    assert any(sentence.startswith("idemwatch ran twice") for sentence in told), told


@pytest.mark.worker
def test_tasks_of_the_users_run_on_servers_of_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(USERS_APP)
    asked = (
        *("--seed", "1", "--works", "6", "--call", 'proj.close:[{n}, "2026-03-01"]'),
        *("--duplicates", "1", "--kills", "0.2", "--redelivery", "0", "--outages", "0"),
        *("--yes-run-my-tasks", "--format", "json"),
    )
    program = (CELERY, "-A", "proj", "idemwatch")
    book = tmp_path / "book"
    with simulation(tmp_path, *asked, program=program, BOOK=str(book)) as running:
        code, out, err = running.end()
        assert code == 0, (out, err)
        assert running.leftovers() == []
    assert "runs tasks of proj for real: proj.close (6 calls)" in err
    told = json.loads(out)
    assert told["app"] == "proj"
    assert told["sides"]["plain"]["doubled"] > 0
    assert (told["sides"]["idemwatch"]["doubled"], told["sides"]["idemwatch"]["lost"]) == (0, 0)
    written = Counter(line.split()[0] for line in book.read_text().splitlines())
    effects = sum(told["sides"][side]["effects"] for side in ("plain", "idemwatch"))
    assert written["close"] == effects
    assert written["follow"] > 0, "what the tasks publish was not done"


@pytest.mark.worker
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with simulation(tmp_path, "--seed", "1") as running:
        wait_until(running.publishes, 60)
        running.interrupt()
        code, out, err = running.end()
        assert (code, out, err) == (130, "", "interrupted; nothing was counted\n")
        assert running.leftovers() == []


@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_an_app_is_led_away_from_its_own_servers(namespace: str | None) -> None:
    prefix = "" if namespace is None else f"{namespace}_"
    names = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
    own = {f"{prefix}{name}".upper() if prefix else name: "redis://127.0.0.1:1/0" for name in names}
    app = Celery("theirs", set_as_current=False)
    app.config_from_object(own, namespace=namespace)
    assert app.backend is not None
    with pytest.raises(ConfigurationError, match="a server of its own"):
        check(app, OURS)
    redirect(app, OURS, {})
    check(app, OURS)


def test_a_store_is_away_and_comes_back(redis_server: RedisServer, redis_url: str) -> None:
    relay = Relay(redis_server.url)
    with redis.Redis.from_url(relay.url(redis_url), socket_timeout=0.2) as client:
        try:
            assert client.ping()
            for hangs, error in ((True, redis.TimeoutError), (False, redis.ConnectionError)):
                relay.away(hangs=hangs)
                with pytest.raises(error):
                    client.ping()
                relay.back()
                assert client.ping()
        finally:
            relay.close()
