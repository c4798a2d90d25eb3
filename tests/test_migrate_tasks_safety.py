"""`migrate-tasks` gives no advice that loses work: where arguments do not say all, no key is made
of them, no builder is used that could refuse a call, and nothing is newly tried again that pays.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.task_code import HEAD, migrated, report, reports
from support.venv import clean_environ

TASK = "@shared_task\n"
BOUND = "@shared_task(bind=True)\n"
MODELS = "from django.db.models import F\nimport requests, random, stripe\n"


def why(folder: Path, code: str) -> tuple[str, str]:
    """The scope of the one task, and the reason for it."""
    advice = report(folder, code).advice
    (told,) = [one for one in advice.reasons if one.startswith("scope ")]
    return advice.scope, told


# -- keys that would make two pieces of work one -----------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (TASK + "def f(days=30): x.delete()", "all its arguments may be left out"),
        (TASK + "def f(*args, **kwargs): x.delete()", "all its arguments may be left out"),
        (TASK + "def sync_shop(shop, date=None): x.save()", "to sync again"),
        (TASK + "def f(x):\n    f.apply_async((x,), countdown=9)", "it sends itself again (f."),
        (TASK + "def f(x): g(x)\ndef g(x): f.si(x).delay()", "it sends itself again (f.si"),
        (BOUND + "def f(self, x): self.apply_async((x,))", "it sends itself again (self."),
        (TASK + "def f(x): app.send_task('proj.tasks.f', (x,))", "it sends itself again"),
        (BOUND + "def f(self, x): use(self.request.headers)", "it uses request.headers"),
        (BOUND + "def f(self, x):\n    r = self.request\n    use(r.headers)", "its request"),
        (BOUND + "def f(self, x): Row.objects.create(id=self.request.id)", "request.id"),
        ("from celery import current_task\n" + TASK + "def f(x): x(current_task.request.id)",
         "it uses request.id"),
        ("from flask import g\n" + TASK + "def f(x): x.save(g.user)", "it uses flask.g.user"),
        (TASK + "def f(x): x.save(connection.tenant)", "it uses connection.tenant"),
        (TASK + "def f(x): R.objects.filter(pk=x).update(n=F('n') + 1)", "it counts (F('n') + 1"),
        (TASK + "def f(x, n):\n    x.total += n\n    x.save()", "it counts (x.total"),
        (TASK + "def f(x, n):\n    x.total = x.total - n\n    x.save()", "it counts (x.total"),
        (TASK + "def f(x): redis.incr(x)", "it counts (incr()"),
        (TASK + "def f(x): redis.lpush(x, 1)", "it counts (lpush()"),
        (TASK + "def add_points(user_id, n): x.save()", "its name says add"),
        (TASK + "def daily_summary(x): x.send()", "its name says daily"),
        (TASK + "def report_daily(report_name, params, user_id): x.send()", "its name says daily"),
        (TASK + "def on_click(x): Click.objects.create(x=x)", "its name says click"),
        (TASK + "def resend_invitation(x): x.save()", "its name says resend"),
        (TASK + "def f(x): R.objects.filter(shop=x, sent=False).delete()", "sent=False at the"),
        (TASK + "def f(x): c.execute(\"SELECT a FROM t WHERE b IS NULL\")\n    ", "a certain st"),
        (TASK + "def f(x): queue.rpop(x)", "it takes what waits (rpop()"),
        (TASK + "def f(x): return requests.get(x).json()", "its answer is what it reads"),
        (TASK + "def f(x): return random.choice(x)", "it answers something else each time"),
        (TASK + "def account_refresh(x): x.save()", "to refresh again"),
        (TASK + "def cleanup_project(x): x.delete()", "to cleanup again"),
        (TASK + "def f(x): R.objects.filter(at__lt=timezone.now()).delete()", "asks for the time"),
    ],
)  # fmt: skip
def test_work_that_the_arguments_do_not_tell_has_the_scope_of_its_message(
    code: str, told: str, tmp_path: Path
) -> None:
    scope, reason = why(tmp_path, MODELS + code)
    assert scope == "task" and told in reason


@pytest.mark.parametrize(
    "code",
    [
        BOUND + "def f(self, x):\n    logger.info(self.request.id)\n    x.save()",
        BOUND + "def f(self, x):\n    x.save(self.request.retries)",
        TASK + "def f(x): other.delay(x)",
        TASK + "def f(x): R.objects.filter(pk=x, state='new').update(state='old')",
        TASK + "def f(x, day): R.objects.filter(day=day, sent=False).delete()",
        TASK + "def f(x):\n    total = 0\n    total += x\n    return total",
        TASK + "def f(x, y): return x + y",
    ],
)
def test_work_that_the_arguments_tell_keeps_its_key(code: str, tmp_path: Path) -> None:
    assert why(tmp_path, MODELS + code)[0] == "global"


@pytest.mark.parametrize(
    "beat",
    [
        "sender.add_periodic_task(5, f.signature((1,)))",
        "sender.add_periodic_task(5, sig=f.s(1))",
        "PeriodicTask.objects.update_or_create(task='proj.tasks.f', args='[1]')",
        "app.conf.beat_schedule = dict(n=dict(task='proj.tasks.f', schedule=5))",
    ],
)
def test_beats_are_known_however_they_are_written(beat: str, tmp_path: Path) -> None:
    scope, reason = why(tmp_path, f"{TASK}def f(x): x.save()\ndef set_up(sender):\n    {beat}\n")
    assert scope == "task" and "a beat sends it" in reason


def test_what_a_beats_task_sends_is_other_work_each_time(tmp_path: Path) -> None:
    beat = "B = {'n': {'task': 'proj.tasks.all_shops', 'schedule': 5}}\n"
    fan = "@shared_task\ndef all_shops():\n    for x in S: middle(x)\n"
    fan += "def middle(x): one_shop.delay(x)\n"
    for argument, scope in (("x", "task"), ("x, day", "global")):
        code = f"{HEAD}{beat}{fan}@shared_task\ndef one_shop({argument}): x.save()\n"
        advice = reports(tmp_path, code)[1].advice
        assert advice.scope == scope
        told = any("a task that a beat sends (" in one for one in advice.reasons)
        assert told is (scope == "task")


@pytest.mark.parametrize("asked", ["if not user_id: return", "if user_id is None: return"])
def test_a_user_that_may_be_missing_is_no_scope(asked: str, tmp_path: Path) -> None:
    assert why(tmp_path, f"{TASK}def f(user_id):\n    {asked}\n    x.save()")[0] == "global"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def send_email(email, template, order_id): ...", "it leaves out order_id"),
        ("def send_email(email, template, context, files=()): ...", "it leaves out files"),
        ("def close_job(job_id, day, force=False): ...", "it leaves out force"),
        ("def report(report_name, params, user_id, format, region): ...", "it leaves out region"),
        ("def send_email(recipient, template): ...", "recipient is not sure to be an address"),
        ("def send_email(email: list[str], template): ...", "email is not sure to be an address"),
        ("def send_email(email, template, context: list): ...", "context is not sure to be a dict"),
        ("def send_email(email, template, context: str): ...", "context is not sure to be a dict"),
        ("def report(report_name, params: list[dict], user_id): ...", "params is not sure"),
        ("def report(report_name, filters, user_id): ...", "filters is not sure to be a dict"),
        ("def close_job(job_id: UUID, day): ...", "job_id is not sure to be an id or a name"),
        ("def escalate(ticket_id, level: str, day): ...", "level is not sure to be a number"),
        ("def close_job(job_id, day):\n    if not day: day = 1", "argument day may be None"),
    ],
)
def test_a_builder_that_would_refuse_or_leave_out_is_not_used(
    code: str, told: str, tmp_path: Path
) -> None:
    advice = report(tmp_path, TASK + code).advice
    assert not advice.builder and advice.key.startswith("all arguments")
    assert any("would fit, but" in one and told in one for one in advice.reasons)


@pytest.mark.parametrize(
    "code",
    [
        "def send_email(email: str, template: str, context: dict[str, Any] | None = None): ...",
        "def report(report_name: str, params: Mapping[str, int], user_id: int): ...",
        "def escalate(ticket_id: int, level: int, day: date): ...",
    ],
)
def test_a_builder_whose_types_are_sure_is_used(code: str, tmp_path: Path) -> None:
    assert report(tmp_path, TASK + code).advice.builder


def test_a_migrated_task_turns_duplicates_away_and_no_other_work(tmp_path: Path) -> None:
    code = (
        HEAD + "import builtins\nruns = []\n"
        "@shared_task\ndef send_email(email, template, order_id): runs.append(order_id)\n"
        "@shared_task\ndef charge(amount, /, card, *, tip=0): runs.append((amount, card, tip))\n"
        "@shared_task(bind=1)\ndef work(self, x, /): runs.append(x)\n"
        "@shared_task\ndef tidy(limit=10): runs.append(limit)\n"
    )
    migrated(tmp_path, code.encode())
    run = (
        "from celery import Celery\napp = Celery(broker='memory://')\napp.set_default()\n"
        "app.conf.update(task_always_eager=True, idempotency_store='memory')\nimport tasks as t\n"
        "for order in (1, 1, 2): t.send_email.delay('a@example.org', 'paid', order).get()\n"
        "for tip in (0, 0, 5): t.charge.delay(9, 'c', tip=tip).get()\n"
        "for x in ('a', 'a', 'b'): t.work.delay(x).get()\n"
        "for _ in range(2): t.tidy.delay().get()\n"
        "print(t.runs)\n"
    )
    done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, env=clean_environ(),
                          capture_output=True, text=True, check=False)  # fmt: skip
    expected = [1, 2, (9, "c", 0), (9, "c", 5), "a", "b", 10, 10]
    assert done.stdout.strip() == str(expected), done.stderr


# -- retries and time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "tried_again"),
    [
        ("stripe.Charge.create(amount=x)", False),
        ("send_mail(x)\n    x.save()", False),
        ("requests.post(x)\n    x.save()", False),
        ("x.save()\n    send_mail(x)", True),
        ("x.save()", True),
    ],
)
def test_nothing_that_goes_out_is_newly_tried_again(
    body: str, tried_again: bool, tmp_path: Path
) -> None:
    advice = report(tmp_path, f"{MODELS}{TASK}def f(x):\n    {body}\n").advice
    assert advice.policy is tried_again
    assert any(one.startswith("no retries added") for one in advice.reasons) is not tried_again


@pytest.mark.parametrize(
    ("options", "hours", "told"),
    [
        ("max_retries=50, default_retry_delay=3600", 52, "its own 50 retries last 50 h"),
        ("max_retries=100", 7, "its own 100 retries last 5 h"),
        ("max_retries=3", 2, "covers its retries"),
        ("max_retries=None", 2, "no TTL covers retries without end"),
        ("max_retries=99999, default_retry_delay=86400", 366 * 24, "its own 99999 retries"),
    ],
)
def test_a_ttl_covers_the_tasks_own_retries(
    options: str, hours: int, told: str, tmp_path: Path
) -> None:
    advice = report(tmp_path, f"@shared_task({options})\ndef f(x): x.save()\n").advice
    assert advice.ttl_seconds == hours * 3600
    assert any(one.startswith("TTL: ") and told in one for one in advice.reasons)


def test_a_ttl_covers_the_delays_that_a_retry_names(tmp_path: Path) -> None:
    code = f"{BOUND}def f(self, x):\n    x.save()\n    raise self.retry(countdown=7200)\n"
    assert report(tmp_path, code).advice.ttl_seconds == 8 * 3600


# -- what is left to a person ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("@shared_task(base=Own)\n@transaction.atomic\ndef f(x): x.save()", "would stand within"),
        ("def g():\n    @shared_task(base=Own)\n    def f(x): x()", "give all of them one key"),
        ("@shared_task(base=Own, name=N)\ndef f(x): x.save()", "give all of them one key"),
        ("@shared_task(bind=BOUND)\ndef f(self, x): ...", "bind=BOUND cannot be read"),
        ("from celery.task import periodic_task\n@periodic_task(run_every=5)\ndef f(x=1): ...",
         "periodic_task gives it a base class of its own"),
        ("import tenant_schemas_celery.app\n@shared_task\ndef f(x): x()", "the tenant travels"),
    ],
)  # fmt: skip
def test_what_a_tool_cannot_see_through_is_left_to_a_person(
    code: str, told: str, tmp_path: Path
) -> None:
    (found,) = reports(tmp_path, HEAD + code)
    assert found.action == "by_hand" and told in found.why
