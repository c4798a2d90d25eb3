"""The five tasks of facility management, each doing its work once. `celery -A
idemwatch.demo.facility worker` runs them.

A task claims its message's work. Its effects in PostgreSQL commit together with a record of their
own, so a process that is killed at any line leaves both or neither. Days are arguments: a message
that comes again after midnight is still yesterday's. What is wrong with the arguments fails at
once, what another holds comes again later, and any other error is retried.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from idemwatch.idempotency import (
    IdempotentTask,
    autoclose_key,
    email_notification_key,
    ppm_job_key,
    report_generation_key,
    task_retry_policy,
    ticket_escalation_key,
)
from idemwatch.idempotency.errors import InvalidKey
from idemwatch.idempotency.keys import digest
from idemwatch.idempotency.policies import LATER
from idemwatch.scheduler.errors import InvalidSchedule, ScheduleConflict
from idemwatch.scheduler.uniqueness_store import ScheduleUniquenessService

from . import facility_store as store
from . import mail, report
from .celery_app import app
from .facility_settings import BadInput, client_of, day_of, number_of

DAILY: Final = timedelta(hours=26)
"""How long a day's work is remembered: the day, and the redeliveries after it."""
REPORT_TTL: Final = timedelta(hours=24)
LOCK_SECONDS: Final = 30
NOT_RETRIED: Final = (
    *(BadInput, InvalidKey, InvalidSchedule, ScheduleConflict),  # it would not help
    *LATER,
)
CRITICAL: Final = task_retry_policy(
    "critical", idempotency_ttl=DAILY, dont_autoretry_for=NOT_RETRIED
)
REPORT: Final = task_retry_policy("report", dont_autoretry_for=NOT_RETRIED)
EMAIL: Final = task_retry_policy("email", dont_autoretry_for=NOT_RETRIED)


# shared=False: the tests that import this module have apps of their own, which get no task of it.
@app.task(base=IdempotentTask, bind=True, shared=False, name="auto_close_jobs", **CRITICAL)  # type: ignore[untyped-decorator]
def auto_close_jobs(self: Any, day: str, client_id: str | None = None) -> dict[str, Any]:
    """Close the jobs that nobody did in time: each once a day, with one mail to its contact."""
    on = day_of(day)
    with store.connect() as connection:
        jobs = store.jobs_to_close(connection, on, client_of(client_id))
    return {"day": on.isoformat(), "closed": sum(_close(self, job, on) for job in jobs)}


def _close(task: Any, job: store.Row, on: date) -> bool:
    task.claim.check()  # raises LeaseLost once a successor may be at work
    key = autoclose_key(job["id"], on)
    with (
        task.idempotency.lock(f"autoclose_job:{job['id']}", timeout=LOCK_SECONDS),
        task.idempotency.transaction(key, ttl=DAILY) as tx,
    ):
        if not tx.duplicate and store.lock_job(tx.connection, job["id"]):
            store.close_job(tx.connection, job, on)
            tx.result = {"job_id": job["id"], "status": "closed", "closed_at": on.isoformat()}
    return tx.result is not None


@app.task(base=IdempotentTask, bind=True, shared=False, name="ticket_escalation", **CRITICAL)  # type: ignore[untyped-decorator]
def ticket_escalation(self: Any, day: str, client_id: str | None = None) -> dict[str, Any]:
    """Bring overdue tickets up by one level: each once a day, with one mail to its contact."""
    on = day_of(day)
    with store.connect() as connection:
        tickets = store.tickets_to_escalate(connection, on, client_of(client_id))
    return {"day": on.isoformat(), "escalated": sum(_escalate(self, one, on) for one in tickets)}


def _escalate(task: Any, ticket: store.Row, on: date) -> bool:
    task.claim.check()
    level = ticket["escalation_level"] + 1
    key = ticket_escalation_key(ticket["id"], level, on)
    with (
        task.idempotency.lock(f"escalate_ticket:{ticket['id']}", timeout=LOCK_SECONDS),
        task.idempotency.transaction(key, ttl=DAILY) as tx,
    ):
        if not tx.duplicate and store.lock_ticket(tx.connection, ticket):
            store.escalate(tx.connection, ticket, level, on)
            tx.result = {"ticket_id": ticket["id"], "escalation_level": level}
    return tx.result is not None


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name="create_ppm_job",
    idempotency_key=lambda _task, schedule_id, day: ppm_job_key(schedule_id, day),
    **CRITICAL,
)
def create_ppm_job(self: Any, schedule_id: int, day: str) -> Any:
    """The job of a recurring one for a day, and the schedule that reminds of it. Raises
    ScheduleConflict when something else is planned on the asset at that time.
    """
    on = day_of(day)
    with (
        self.idempotency.lock(f"create_ppm:{schedule_id}", timeout=LOCK_SECONDS),
        self.idempotency.transaction(f"{ppm_job_key(schedule_id, day)}:job", ttl=DAILY) as tx,
    ):
        if not tx.duplicate:
            recurring = store.recurring_job(tx.connection, number_of("schedule_id", schedule_id))
            unique = ScheduleUniquenessService(connection=tx.connection)
            planned = unique.ensure_unique_schedule(reminder(recurring, on))
            job_id = store.add_job(tx.connection, recurring, on, int(planned.id))
            tx.result = {"job_id": job_id, "schedule_id": schedule_id}
    return tx.result


def reminder(recurring: store.Row, on: date) -> dict[str, Any]:
    """When the job is due on its day, its contact gets a mail."""
    context = {"job": recurring["identifier"], "asset": recurring["asset_id"]}
    return {
        "identifier": f"{recurring['identifier']}:{on.isoformat()}",
        "task": send_reminder_email.name,
        "kwargs": {
            "recipient_email": recurring["contact"],
            "template_name": "job_due",
            "context": {**context, "day": on.isoformat()},
        },
        "cron_expression": recurring["cron_expression"],
        "duration_estimate_seconds": recurring["duration_seconds"],
        "asset_id": recurring["asset_id"],
        "client_id": recurring["client_id"],
        "fromdate": on,
        "uptodate": on + timedelta(days=1),
    }


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name="create_scheduled_reports",
    idempotency_scope="user",
    idempotency_key=lambda _task, *args, **kwargs: report_key(*args, **kwargs),
    **REPORT,
)
def create_scheduled_reports(
    self: Any,
    report_name: str,
    params: dict[str, Any],
    user_id: int,
    format: str = "pdf",  # noqa: A002
) -> Any:
    """Render a report for a user; for a day the same call gets the same file."""
    report.renderer(format)
    key = report_key(report_name, params, number_of("user_id", user_id), format)
    with store.connect() as connection:
        rows = report.report_rows(connection, report_name, params)
    title = report.title_of(report_name, params)
    path = report.render(rows, title, format, f"{report_name}-{digest(key.encode())}")
    written = {"name": report_name, "params": params, "user_id": user_id, "format": format}
    with self.idempotency.transaction(f"{key}:row", ttl=REPORT_TTL) as tx:
        if not tx.duplicate:
            row = {**written, "path": str(path), "record_count": len(rows)}
            report_id = store.add_report(tx.connection, row)
            tx.result = {"report_id": report_id, "report_url": str(path), "record_count": len(rows)}
    return tx.result


def report_key(
    report_name: str,
    params: dict[str, Any],
    user_id: int,
    format: str = "pdf",  # noqa: A002
) -> str:
    """The key of a report. Raises BadInput for params that are no object."""
    return report_generation_key(report_name, _object("params", params), user_id, format)


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    shared=False,
    name="send_reminder_email",
    idempotency_key=lambda _task, *args, **kwargs: email_key(*args, **kwargs),
    idempotency_ignore_args=("recipient_email",),  # it is in the key, in small letters
    **EMAIL,
)
def send_reminder_email(
    recipient_email: str, template_name: str, context: dict[str, Any]
) -> dict[str, Any]:
    """Send a mail. A worker that dies between the mail server's 250 and the record sends it again,
    with the same Message-ID, by which it can be told.
    """
    key = email_key(recipient_email, template_name, context)
    message_id = mail.send(recipient_email, template_name, context, mail.message_id_of(key))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"sent": True, "template": template_name, "message_id": message_id, "sent_at": now}


def email_key(recipient_email: str, template_name: str, context: dict[str, Any]) -> str:
    """The key of a mail, which holds no address. Raises BadInput."""
    mail.address("recipient_email", recipient_email)
    return email_notification_key(recipient_email, template_name, _object("context", context))


def _object(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadInput(name, f"a value of type {type(given).__name__} is no object")
    return given
