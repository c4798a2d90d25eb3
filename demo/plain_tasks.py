# ruff: noqa: A002, B904, DTZ011
# mypy: ignore-errors
"""The five tasks as a plain Celery team has them: nothing keeps them from working twice.

The twin of demo/facility.py, on the same tables, reports and mail.
"""

from __future__ import annotations

import smtplib
from datetime import date, timedelta

import psycopg
from celery import Celery, shared_task
from celery.utils.log import get_task_logger
from idemwatch.demo import facility_store as store
from idemwatch.demo import mail, report

logger = get_task_logger(__name__)

app = Celery("facility")
app.conf.task_ignore_result = True


@shared_task(name="auto_close_jobs", bind=True, max_retries=5)
def auto_close_jobs(self, client_id=None):
    """Close the jobs that nobody did in time."""
    today = date.today()
    try:
        with store.connect() as connection:
            jobs = store.jobs_to_close(connection, today, client_id)
            for job in jobs:
                store.close_job(connection, job, today)
                logger.info("closed job %s", job["id"])
    except psycopg.OperationalError as exc:
        raise self.retry(exc=exc, countdown=60)
    return {"closed": len(jobs)}


@shared_task(name="ticket_escalation", bind=True, max_retries=5)
def ticket_escalation(self, client_id=None):
    """Bring overdue tickets one level up, and tell their contacts."""
    today = date.today()
    try:
        with store.connect() as connection:
            tickets = store.tickets_to_escalate(connection, today, client_id)
            for ticket in tickets:
                next_level = ticket["escalation_level"] + 1
                store.escalate(connection, ticket, next_level, today)
    except psycopg.OperationalError as exc:
        raise self.retry(exc=exc, countdown=60)
    return {"escalated": len(tickets)}


@app.task(
    name="create_ppm_job",
    autoretry_for=(psycopg.OperationalError,),
    retry_backoff=True,
)
def create_ppm_job(schedule_id):
    """Make today's job of a recurring one."""
    today = date.today()
    with store.connect() as connection:
        recurring = store.recurring_job(connection, schedule_id)
        job_id = store.add_job(connection, recurring, today)
        due = {
            "job": recurring["identifier"],
            "asset": recurring["asset_id"],
            "day": (today + timedelta(days=1)).isoformat(),
        }
        store.add_mail(connection, recurring["contact"], "job_due", due)
    return {"job_id": job_id, "schedule_id": schedule_id}


@app.task(name="create_scheduled_reports")
def create_scheduled_reports(report_name, params, user_id, format="pdf"):
    """Render a report for a user."""
    with store.connect() as connection:
        rows = report.report_rows(connection, report_name, params)
        title = f"{report_name} of {date.today()}"
        path = report.render(rows, title, format, f"{report_name}-{user_id}-{date.today()}")
        written = {
            "name": report_name,
            "params": params,
            "user_id": user_id,
            "format": format,
            "path": str(path),
            "record_count": len(rows),
        }
        store.add_report(connection, written)
    return {"report_url": str(path), "record_count": len(rows)}


@shared_task(name="send_reminder_email", bind=True, max_retries=5, default_retry_delay=30)
def send_reminder_email(
    self,
    recipient_email,
    template_name,
    context,
):
    """Send a mail."""
    try:
        message_id = mail.send(recipient_email, template_name, context)
    except (smtplib.SMTPException, OSError) as exc:
        logger.error("failed to send mail: %s", exc)
        raise self.retry(exc=exc)
    return {"sent": True, "recipient": recipient_email, "message_id": message_id}
