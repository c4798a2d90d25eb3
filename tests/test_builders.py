"""Key builders: one readable key for one piece of work, with nothing personal in it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from idemwatch.idempotency.builders import (
    autoclose_key,
    email_notification_key,
    ppm_job_key,
    report_generation_key,
    ticket_escalation_key,
)
from idemwatch.idempotency.errors import UnencodableArgument
from idemwatch.idempotency.keys import readable

DAY = date(2026, 11, 24)


def test_builders_make_readable_keys() -> None:
    assert autoclose_key(100, DAY) == "autoclose:100:2026-11-24"
    assert ticket_escalation_key(5, 2, "2026-11-24") == "escalation:5:L2:2026-11-24"
    assert ppm_job_key("s-1", DAY) == "ppm_job:s-1:2026-11-24"
    assert report_generation_key("load", {"y": 1}, 7).startswith("report:load:")
    assert report_generation_key("load", {"y": 1}, 7).endswith(":U7:pdf")


def test_an_id_may_be_a_uuid() -> None:
    number = UUID("12345678-1234-5678-1234-567812345678")
    assert autoclose_key(number, "2026-03-01") == autoclose_key(str(number), "2026-03-01")


def test_personal_data_is_hashed() -> None:
    key = email_notification_key("Alice@Example.com ", "welcome", {"name": "Alice"})
    assert "alice" not in key.lower() and "example" not in key.lower()
    assert key == email_notification_key("alice@example.com", "welcome", {"name": "Alice"})
    assert key != email_notification_key("bob@example.com", "welcome", {"name": "Alice"})
    assert "@" not in autoclose_key("bob@example.com", DAY)
    assert "secret" not in report_generation_key("load", {"who": "secret"}, 7)


def test_an_address_in_a_key_of_ones_own_is_hashed() -> None:
    found = readable("mail:anna@example.org:welcome")
    assert found.startswith("mail:") and found.endswith(":welcome") and "@" not in found
    assert readable(found) == found
    assert readable("mail:Anna@example.org:welcome") != found, "another key stays another one"
    assert readable("effect:3@2026-03-01T00:00:00Z") == "effect:3@2026-03-01T00:00:00Z"


def test_parts_cannot_run_into_each_other() -> None:
    assert autoclose_key("1:2026-11-24", DAY) != autoclose_key("1", DAY)
    assert autoclose_key("1:2", DAY) == "autoclose:1%3A2:2026-11-24"
    assert report_generation_key("a:b", {}, 1) != report_generation_key("a", {}, "b:1")
    assert " " not in autoclose_key("a b\n", DAY)


@pytest.mark.parametrize("day", ["", "24.11.2026", "2026-02-30", None, 5])
def test_a_bad_date_is_refused(day: Any) -> None:
    with pytest.raises(UnencodableArgument, match="YYYY-MM-DD"):
        autoclose_key(1, day)


def test_a_datetime_is_no_day() -> None:
    with pytest.raises(UnencodableArgument, match="time zone"):
        autoclose_key(1, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("part", ["", None, True, 1.5, object()])
def test_a_bad_part_is_refused(part: Any) -> None:
    with pytest.raises(UnencodableArgument, match="job_id"):
        autoclose_key(part, DAY)
