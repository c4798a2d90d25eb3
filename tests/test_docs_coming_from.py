"""docs/coming-from.md: its code runs, and the names that it maps to exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psycopg
import pytest
from idemwatch.idempotency import IdempotencyService, Settings
from idemwatch.idempotency.builders import (
    autoclose_key,
    email_notification_key,
    ppm_job_key,
    report_generation_key,
    ticket_escalation_key,
)
from support.pages import page, tables
from support.reader import Reader, blocks
from support.table import Table
from support.venv import Venv

PAGE = page("docs/coming-from.md").text
OLD_TABLE = """
CREATE TABLE core_syncidempotencyrecord (idempotency_key text, expires_at timestamptz);
INSERT INTO core_syncidempotencyrecord VALUES ('autoclose:7:2026-03-01', now() + interval '1 hour'),
                                              ('autoclose:8:2026-03-01', now() - interval '1 hour')
"""
REBUILT = """
import rebuild
rebuild.app.conf.update(task_always_eager=True, task_eager_propagates=True)
for reason in ("deploy", "complaint"):
    assert rebuild.purge_cache.delay("a.org", reason=reason).get() == "cache of a.org purged"
    assert rebuild.rebuild_index.delay("a.org").get() == "index of a.org rebuilt"
assert rebuild.rebuild_index.idempotency_options.ttl.total_seconds() == 1
"""


@pytest.fixture
def reader(tmp_path: Path, redis_url: str, database_url: str) -> Reader:
    addresses = {
        "redis://localhost:6379/2": redis_url,
        "postgresql://localhost/django": database_url,
    }
    reader = Reader(tmp_path, Venv(Path(sys.prefix)), addresses)
    for block in blocks(PAGE, "python"):
        reader.save(block)
    return reader


def test_its_tasks_run(reader: Reader) -> None:
    reader.run(f"python -c '{REBUILT}'")


def test_keys_that_stayed_the_same_are_brought_over_while_they_live(
    reader: Reader, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(OLD_TABLE)
    for _ in range(2):  # it may be run again
        reader.run(f"IDEMWATCH_DATABASE_URL='{database_url}' python bring_over.py")
    service = IdempotencyService(Settings(database_url=database_url))
    assert service.check_duplicate(autoclose_key(7, "2026-03-01")) is not None
    with service.once(autoclose_key(7, "2026-03-01")) as work:
        assert work.duplicate
    assert service.check_duplicate(autoclose_key(8, "2026-03-01")) is None
    service.engine.close()


def test_the_keys_of_the_django_system_are_as_it_says() -> None:
    day = "2026-03-01"
    assert autoclose_key(7, day) == f"autoclose:7:{day}"
    assert ticket_escalation_key(7, 2, day) == f"escalation:7:L2:{day}"
    assert ppm_job_key(7, day) == f"ppm_job:7:{day}"
    assert re.fullmatch(r"report:load:\w+:U9:pdf", report_generation_key("load", {"a": 1}, 9))
    mail = email_notification_key("a@example.org", "hello", {})
    assert re.fullmatch(r"email:\w+:hello:\w+", mail) and "example" not in mail


def test_columns_that_it_names_are_those_of_the_table(database_url: str) -> None:
    (columns,) = [rows for rows in tables(PAGE) if rows[0][1] == "`idempotency_record`"]
    rows = Table(database_url).execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'idempotency_record'"
    )
    known = {name for (name,) in rows}
    for theirs, ours in columns[1:]:
        named = {*re.findall(r"`([a-z_]+)`", ours)} - {"running"}
        same = {*re.findall(r"`([a-z_]+)`", theirs)} if ours.startswith("the same") else set()
        assert named | same <= known, theirs
    indexes = Table(database_url).execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'idempotency_record'"
    )
    assert len(indexes) == 3 + 1  # and the primary key
