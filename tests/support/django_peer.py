"""django-celery-beat in a process of its own: makes its tables, rows, and says when they are due.

`python -m support.django_peer URL` migrates the database, makes what `make` makes, and prints JSON:
by a row's name, its next runs after MONDAY, as the scheduler's own entry has them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from .peers import MONDAY, celery_runs
from .venv import clean_environ

RUNS = 30


def runs_by_django(url: str) -> dict[str, list[datetime]]:
    """Make the rows in the database of `url`; their runs by name."""
    done = subprocess.run(
        [sys.executable, "-m", "support.django_peer", url],
        env=clean_environ(PYTHONPATH=str(Path(__file__).parents[1])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {name: [datetime.fromisoformat(one) for one in runs] for name, runs in found.items()}


def main(url: str) -> None:
    """Migrate, make, and print."""
    set_up(url)
    from celery import current_app
    from django_celery_beat.models import PeriodicTask
    from django_celery_beat.schedulers import ModelEntry

    make()
    found = {}
    for row in PeriodicTask.objects.filter(one_off=False, solar=None):
        given = ModelEntry(row, app=current_app).schedule
        start = MONDAY.astimezone(getattr(given, "tz", UTC))
        found[row.name] = [one.isoformat() for one in celery_runs(given, start, RUNS)]
    print(json.dumps(found))


def set_up(url: str) -> None:
    """Django with one database and one app, migrated."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    given = conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host",
             "PORT": "port"}  # fmt: skip
    database = {name: str(given.get(key) or "") for name, key in names.items()}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}},
        INSTALLED_APPS=["django_celery_beat"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)


def make() -> None:
    """A row of each kind."""
    from django_celery_beat import models

    for name, fields in CRONTABS.items():
        add(name, crontab=models.CrontabSchedule.objects.create(**fields))
    for every, period in INTERVALS:
        made = models.IntervalSchedule.objects.create(every=every, period=period)
        add(f"{every} {period}", interval=made, last_run_at=MONDAY)
    second = models.IntervalSchedule.objects.create(every=1, period="seconds")
    sun = models.SolarSchedule.objects.create(event="sunset", latitude=48.2, longitude=16.37)
    add("sunset", solar=sun)
    add("sunset once", solar=sun, one_off=True, last_run_at=MONDAY)
    clock = models.ClockedSchedule.objects.create(clocked_time=MONDAY + timedelta(hours=5))
    add("clocked", clocked=clock, one_off=True)
    add("clocked and over", clocked=clock, one_off=True, total_run_count=1)
    nightly = models.CrontabSchedule.objects.create(minute="0", hour="4", timezone="Europe/Berlin")
    add("once", crontab=nightly, one_off=True, last_run_at=MONDAY)
    add("once, later", crontab=nightly, one_off=True, start_time=MONDAY + timedelta(days=2))
    add("off", interval=second, enabled=False)
    add(
        "all", "proj.all", interval=second, args='[1, "zwölf", [null]]', kwargs='{"b": 1, "a": 2}',
        queue="q", exchange="x", routing_key="r", priority=7, headers='{"h": 1}',
        expires=MONDAY + timedelta(days=9), start_time=MONDAY,
    )  # fmt: skip
    add("seconds to live", interval=second, expire_seconds=90, priority=200)


def add(name: str, task: str = "proj.task", **fields: Any) -> None:
    """A row, as the admin makes it."""
    from django_celery_beat.models import PeriodicTask

    PeriodicTask.objects.create(name=name, task=task, **fields)


CRONTABS = {
    "each minute": {},
    "office": {"minute": "*/15", "hour": "8-17", "day_of_week": "mon-fri", "timezone": "UTC"},
    "Berlin": {"minute": "30", "hour": "6", "timezone": "Europe/Berlin"},
    "Kolkata": {"minute": "0,30", "hour": "22-2", "timezone": "Asia/Kolkata"},
    "days": {"minute": "7", "hour": "0", "day_of_month": "1-7, 15", "day_of_week": "mon,tue"},
    "months": {"minute": "7", "hour": "0", "day_of_month": "31", "month_of_year": "*/2"},
}
INTERVALS = (
    (2, "days"),
    (3, "hours"),
    (90, "minutes"),
    (45, "seconds"),
    (1_500_000, "microseconds"),
)


if __name__ == "__main__":
    main(sys.argv[1])
