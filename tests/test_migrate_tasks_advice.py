"""What `migrate-tasks` recommends for a task, and when it leaves one to a person."""

from __future__ import annotations

from pathlib import Path

import pytest
from idemwatch.idempotency.policies import POLICIES
from idemwatch.idempotency.task_model import Action
from idemwatch.idempotency.task_rules import RULES
from idemwatch.idempotency.task_tree import analyse
from support.task_code import HEAD, report, reports

TASK = "@shared_task\n"


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("def send_reminder_email(recipient): ...", "email"),
        ("def create_scheduled_reports(name): ...", "report"),
        ("def ticket_escalation(ticket_id): ...", "critical"),
        ("def autoCloseJobs(job_id): ...", "critical"),
        ("def create_job(x): Job.objects.create(x=x)", "high_priority"),
        ("def settle(x): stripe.Charge.create(x=x)", "critical"),
        ("def greet(x): send_mail(x)", "email"),
        ("def cleanup_reports(x): ...", "maintenance"),
        ("def add(x, y): return x + y", "maintenance"),
        ("def add(x, y): logger.info('%s', ', '.join(map(str, x)))", "maintenance"),
        ("def work(x): services.work(x)", "high_priority"),
        ("def work(order): order.ship()", "high_priority"),
    ],
)
def test_category_is_told_by_name_and_effects(code: str, category: str, tmp_path: Path) -> None:
    advice = report(tmp_path, TASK + code).advice
    assert advice.category == category and advice.authority == POLICIES[category].authority
    assert advice.ttl_seconds == POLICIES[category].ttl.total_seconds()
    assert advice.reasons[0].startswith(f"category {category}: ")


@pytest.mark.parametrize(
    ("code", "scope", "why"),
    [
        ("def f(x): ...", "global", "the same arguments are the same work"),
        ("def f(): ...", "task", "it has no arguments"),
        ("def f(x):\n    t = date.today()\n    save(t)", "task", "it asks for the time itself"),
        ("def f(x): old(now() - timedelta(days=1))", "task", "it asks for the time itself"),
        ("def f(x): x.at = now()", "global", "the same arguments"),
        ("def f(x, day): date.today()", "global", "the same arguments"),
        ("def sync_stock(x): ...", "task", "to sync again"),
        ("def f(user_id): ...", "user", "each call names its user_id"),
        ("def f(x, user_id=None): ...", "global", "the same arguments"),
        ("def f(user_id: int | None): ...", "global", "the same arguments"),
        ("def f(device_id, x): ...", "device", "each call names its device_id"),
        ("def run_nightly(x): ...", "task", "a beat sends it with the same arguments"),
        ("def hourly(x): ...", "task", "a beat sends it with the same arguments"),
    ],
)
def test_scope_never_swallows_work_that_may_be_meant(
    code: str, scope: str, why: str, tmp_path: Path
) -> None:
    beat = "\nb = {'n': {'task': 'proj.tasks.run_nightly', 'schedule': 60}}\n"
    beat += "def setup(sender): sender.add_periodic_task(10.0, hourly.s('x'))\n"
    head = "from datetime import date, timedelta\nfrom django.utils.timezone import now\n"
    found = report(tmp_path, head + TASK + code + beat)
    assert found.advice.scope == scope
    assert any(one.startswith(f"scope {scope}: {why}") for one in found.advice.reasons)


@pytest.mark.parametrize(
    ("code", "key", "ttl"),
    [
        ("def close_job(job_id, day): ...", "autoclose_key(job_id, day)", 26),
        ("def close_job(job_id, date: date): ...", "autoclose_key(job_id, date)", 26),
        ("def close_job(job_id, date): ...", "all arguments (job_id, date)", 26),
        ("def close_job(job_id, day=None): ...", "all arguments (job_id, day)", 26),
        ("def close_job(job_id, day, **more): ...", "all arguments (job_id, day)", 26),
        ("def close_job(job_id, trace_id): ...", "all arguments (job_id)", 4),
        ("def escalate(ticket_id, level, day): ...",
         "ticket_escalation_key(ticket_id, level, day)", 26),
        ("def create_ppm(schedule_id, day: str): ...", "ppm_job_key(schedule_id, day)", 26),
        ("def report(name, params, user_id): ...",
         "report_generation_key(name, params, user_id)", 24),
        ("def send_email(email, template, context=None): ...",
         "email_notification_key(email, template, context)", 2),
        ("def send_email(recipients, template): ...", "all arguments (recipients, template)", 2),
    ],
)  # fmt: skip
def test_a_builder_is_used_only_where_it_never_refuses(
    code: str, key: str, ttl: int, tmp_path: Path
) -> None:
    advice = report(tmp_path, TASK + code).advice
    assert (advice.key, advice.ttl_seconds) == (key, ttl * 3600)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def f(x: datetime): ...", "argument x is a datetime"),
        ("def f(x: 'Order'): ...", "argument x is a model"),
        ("def f(x: models.Invoice): ...", "argument x is a model"),
        ("def f(x: BinaryIO | None): ...", "argument x is a file"),
        ("def f(x=lambda: 1): ...", "has the default lambda: 1, a function"),
        ("def f(x=MISSING): ...", "has the default MISSING, an object"),
        ("def f(x=float('nan')): ...", "NaN"),
        ("def f(x=datetime(2026, 1, 1)): ...", "a datetime without a time zone"),
        ("def f(x=date.today()): ...", "is computed once, when the worker starts"),
        ("def f(x=uuid.uuid4()): ...", "is computed once, when the worker starts"),
        ("async def f(x): ...", "it is async or a generator"),
        ("def f(x):\n    yield x", "it is async or a generator"),
    ],
)
def test_what_would_fail_every_call_is_left_to_a_person(
    code: str, why: str, tmp_path: Path
) -> None:
    head = "import uuid\nfrom datetime import date, datetime\nMISSING = object()\n"
    head += "from .models import Order\nclass Invoice(models.Model): ...\n"
    found = report(tmp_path, head + TASK + code)
    assert found.action is Action.BY_HAND and why in found.why


@pytest.mark.parametrize(
    "code",
    [
        "def f(x: int, y: Decimal | None = None, z: list[str] = ()): ...",
        "def f(x: 'dict[str, UUID]', y: Optional[date] = None): ...",
        "def f(x: Colour = Colour.RED, y: Literal['a'] = 'a'): ...",
        "def f(x=datetime(2026, 1, 1, tzinfo=UTC)): ...",
    ],
)
def test_plain_arguments_are_in_nobodys_way(code: str, tmp_path: Path) -> None:
    head = (
        "from enum import Enum\nfrom datetime import UTC, datetime\nclass Colour(Enum): RED = 1\n"
    )
    found = report(tmp_path, head + TASK + code)
    assert found.action is Action.MIGRATE and not found.findings


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("@shared_task(acks_late=False)\ndef f(x): ...", "early-acks"),
        ("@shared_task(reject_on_worker_lost=False)\ndef f(x): ...", "no-redelivery"),
        ("@shared_task(ignore_result=True)\ndef f(x): ...", "ignored-result"),
        ("@shared_task(autoretry_for=(OSError,))\ndef f(x): ...", "own-retries"),
        ("@shared_task(bind=True)\ndef f(self, x): raise self.retry()", "own-retries"),
        (TASK + "def f(x=[]): ...", "mutable-default"),
        (TASK + "def f(x: Thing): ...", "unknown-argument"),
        (TASK + "def f(x): date.today()", "day-inside"),
        (TASK + "def f(x): x.at = datetime.now()", "moment-inside"),
        (TASK + "def f(x): x.id = uuid.uuid4()", "random-inside"),
        (TASK + "def f(x):\n    x.save()\n    send_mail(x)", "several-effects"),
    ],
)
def test_findings_name_their_rule_and_line(code: str, rule: str, tmp_path: Path) -> None:
    head = "import uuid\nfrom datetime import date, datetime\n"
    found = report(tmp_path, head + code)
    (one,) = (one for one in found.findings if one.rule == rule)
    assert one.level is RULES[rule].level and 4 <= one.line <= 7


def test_own_retry_options_are_kept_and_none_added(tmp_path: Path) -> None:
    for code in ("@shared_task(max_retries=1)\ndef f(x): ...",
                 "@shared_task(acks_late=True)\ndef f(x): ...",
                 "@shared_task(bind=True)\ndef f(self, x): self.retry()"):  # fmt: skip
        advice = report(tmp_path, code).advice
        assert not advice.policy and "its own options are kept" in advice.reasons[-1]
    assert report(tmp_path, TASK + "def f(x): ...").advice.policy


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import requests\n@shared_task\ndef f(x): requests.post(x)", "http"),
        ("import subprocess as s\n@shared_task\ndef f(x): s.run(x)", "process"),
        ("@shared_task\ndef f(x): open(x, 'a')", "file"),
        ("@shared_task\ndef f(x): Job.objects.filter(x=x).update(y=1)", "database"),
        ("@shared_task\ndef f(x): cursor.execute('UPDATE t SET x = 1')", "database"),
        ("@shared_task\ndef f(x): other.delay(x)", "publish"),
        ("@shared_task\ndef f(x): gateway.refund(x)", "payment"),
        ("@shared_task\ndef f(x): cache.set(x, 1)", "cache"),
        ("@shared_task\ndef f(x): store.close_job(x)", "named"),
        ("@shared_task\ndef f(x): g(x)\ndef g(x): h(x)\ndef h(x): x.save()", "database"),
    ],
)
def test_effects_are_seen_through_aliases_and_functions(
    code: str, kind: str, tmp_path: Path
) -> None:
    assert [one.kind for one in report(tmp_path, code).effects] == [kind]


@pytest.mark.parametrize(
    "code",
    [
        "def f(x): cursor.execute('SELECT 1')",
        "def f(x): open(x)",
        "def f(x): requests.get(x)",
        "def f(x): x.update({})",
    ],
)
def test_reading_is_no_effect(code: str, tmp_path: Path) -> None:
    assert report(tmp_path, "import requests\n" + TASK + code).effects == ()


@pytest.mark.parametrize(
    "code",
    [
        "from huey import RedisHuey\nhuey = RedisHuey()\n@huey.task()\ndef f(x): ...",
        "from fastapi import FastAPI\napp = FastAPI()\n@app.task\ndef f(x): ...",
        "from invoke import task\n@task\ndef f(c): ...",
        "import asyncio\nclass Task: ...\nclass A(Task):\n    def run(self): ...",
        "from celery import Task\nclass A(Task):\n    abstract = True\n    def run(self): ...",
    ],
)
def test_what_is_no_task_of_celerys_is_left_out(code: str, tmp_path: Path) -> None:
    assert reports(tmp_path, code) == []


@pytest.mark.parametrize(
    "code",
    [
        "from proj.celery import app\n@app.task\ndef f(x): ...",
        "from proj import celery_app\n@celery_app.task()\ndef f(x): ...",
        "import celery\n@celery.shared_task\ndef f(x): ...",
        "from celery import Celery\nq = Celery()\n@q.task\ndef f(x): ...",
        "q = make_celery(x)\nt = q.task\n@t\ndef f(x): ...",
        "from celery import current_app as c\n@c.task\ndef f(x): ...",
        "def make(celery):\n    @celery.task\n    def f(x): ...",
        "from celery.app.task import Task as T\nclass F(T):\n    def run(self, x): ...",
    ],
)
def test_tasks_are_found_under_every_name(code: str, tmp_path: Path) -> None:
    (found,) = reports(tmp_path, code)
    assert found.function in ("f", "F") and found.action is Action.MIGRATE


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("from celery import Celery\napp = Celery(task_cls=Context)\n", "task class of its own"),
        ("from proj.celery import app\napp.Task = Context\n", "task class of its own"),
        ("from proj.celery import app\ndef view(): f.delay_on_commit(1)\n", "delay_on_commit"),
    ],
)
def test_methods_of_another_task_class_are_not_lost(code: str, why: str, tmp_path: Path) -> None:
    (found,) = reports(tmp_path, f"{code}@app.task\ndef f(x): ...\n")
    assert found.action is Action.BY_HAND and why in found.why


def test_options_that_cannot_be_read_are_left_to_a_person(tmp_path: Path) -> None:
    for code in ("O = {}\nO.update(x)\n@shared_task(**O)\ndef f(x): ...",
                 "@shared_task(**options())\ndef f(x): ..."):  # fmt: skip
        found = report(tmp_path, code)
        assert found.action is Action.BY_HAND and "which cannot be read" in found.why
    found = report(tmp_path, "O = dict(max_retries=1)\n@shared_task(**O)\ndef f(x): ...")
    assert found.action is Action.MIGRATE and not found.advice.policy


def test_a_task_class_of_a_tests_app_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text("from celery import Celery\napp = Celery(task_cls=T)\n")
    tasks = tmp_path / "tasks.py"
    tasks.write_text(f"{HEAD}@shared_task\ndef f(x): ...\n")
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    assert [one.action for one in analyse(files).reports] == [Action.MIGRATE]
    (tmp_path / "test_app.py").rename(tmp_path / "app.py")
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    assert [one.action for one in analyse(files).reports] == [Action.BY_HAND]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("app.task(f)", 1),
        ("app.task(name='x')(f)", 1),
        ("for one in (f, g): app.task(one)", 1),
        ("from functools import partial\nmake = partial(app.task, bind=True)", 1),
        ("def make(**o): return app.task(**o)", 1),
        ("app.task(f, base=IdempotentTask)", 0),
    ],
)
def test_tasks_that_calls_make_are_told(code: str, told: int, tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    head = "from idemwatch.idempotency import IdempotentTask\nfrom proj.celery import app\n"
    path.write_text(head + code)
    found = analyse([str(path)])
    assert len(found.dynamic) == told and found.open == bool(told) and not found.reports
