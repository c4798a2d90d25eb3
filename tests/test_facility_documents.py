"""Reports, mail and settings of the facility application, without a worker."""

from __future__ import annotations

import csv
import io
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from idemwatch.demo import facility_settings, mail, report
from idemwatch.demo.facility_settings import BadInput
from idemwatch.demo.smtp_server import Inbox, MailServer
from idemwatch.idempotency.errors import ConfigurationError

TO = "anna@example.org"
CONTEXT = {"job": "filters", "job_id": 1, "day": "2026-03-01"}
ROWS: list[dict[str, Any]] = [
    {"id": 1, "title": "=HYPERLINK(1)", "level": -1, "day": date(2026, 3, 1), "asset": None},
    {"id": 2, "title": "lift", "level": 2, "day": date(2026, 3, 2), "asset": "Ł-1"},
]


# -- mail ------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """The mail server that the application sends to."""
    running = MailServer(Inbox())
    monkeypatch.setenv("FACILITY_SMTP", running.address)
    yield running
    running.close()


def test_a_mail_is_sent_with_its_message_id(server: MailServer) -> None:
    wanted = mail.message_id_of("email:1")
    assert mail.send(TO, "job_closed", CONTEXT, wanted) == wanted
    (received,) = server.inbox.mails()
    assert received.message_id == wanted
    assert (received.sender, received.recipients) == ("facility@localhost", (TO,))
    assert received.subject == "Job filters was closed"
    assert received.text.strip() == (
        "Job filters (number 1) was not done in time and was closed on 2026-03-01."
    )


def test_the_message_id_of_a_key_is_always_the_same_and_tells_nothing_of_it() -> None:
    one, other = mail.message_id_of("email:anna"), mail.message_id_of("email:berta")
    assert one == mail.message_id_of("email:anna") != other
    assert "anna" not in one


@pytest.mark.parametrize(
    "recipient",
    ["", "anna", "@example.org", "anna@", "a@b.org, c@d.org", "a@b.org\nBcc: c@d.org",
     "a@b.org\r\nSubject: x", "Anna <a@b.org>", "a@b@c.org", "a b@c.org", "ä@b.org", "a@b.org\x00",
     "a" * 250 + "@b.org", None, 7, ["a@b.org"]],
)  # fmt: skip
def test_what_is_no_single_address_gets_no_mail(server: MailServer, recipient: Any) -> None:
    with pytest.raises(BadInput, match="recipient_email: is no single e-mail address"):
        mail.send(recipient, "job_closed", CONTEXT)
    assert server.inbox.mails() == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"job": "x\nBcc: c@d.org"}, "a subject of several lines"),
        ({"job": "x\r\n\r\nhello"}, "a subject of several lines"),
        ({"job": "x\u2028y"}, "a subject of several lines"),
        ({"job": "x" * 300}, "too long a one"),
        ({"job": ["x"]}, "'job' is neither text nor a whole number"),
        ({"job": True}, "'job' is neither text nor a whole number"),
    ],
)
def test_a_context_never_becomes_a_header(
    server: MailServer, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        mail.send(TO, "job_closed", {**CONTEXT, **changed})
    assert server.inbox.mails() == []


def test_what_looks_like_a_template_is_not_filled_in(server: MailServer) -> None:
    mail.send(TO, "job_closed", {**CONTEXT, "job": "$day"})
    assert server.inbox.mails()[0].subject == "Job $day was closed"


@pytest.mark.parametrize(("reply", "error"), [("451 later", smtplib.SMTPException),
                                              ("550 never", mail.MailRefused)])  # fmt: skip
def test_a_refusal_says_whether_to_try_again(
    server: MailServer, reply: str, error: type[Exception]
) -> None:
    server.inbox.answer = lambda _: reply
    with pytest.raises(error) as caught:
        mail.send(TO, "job_closed", CONTEXT)
    assert isinstance(caught.value, BadInput) == (error is mail.MailRefused)
    assert server.inbox.mails() == []


# -- reports ---------------------------------------------------------------------------------------


def test_no_cell_of_a_csv_is_taken_for_a_formula() -> None:
    read = list(csv.DictReader(io.StringIO(report.as_csv(ROWS).decode())))
    assert read[0]["title"] == "'=HYPERLINK(1)"
    assert (read[0]["level"], read[0]["asset"]) == ("-1", "")
    assert (read[1]["title"], read[1]["day"], read[1]["asset"]) == ("lift", "2026-03-02", "Ł-1")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_every_beginning_of_a_formula_is_neutralised(start: str) -> None:
    (row,) = csv.DictReader(io.StringIO(report.as_csv([{"a": f"{start}1"}]).decode(), newline=""))
    assert row["a"] == f"'{start}1"


@pytest.mark.parametrize("rows", [ROWS, [], ROWS * 200], ids=["some", "none", "many pages"])
def test_a_pdf_is_whole_whatever_letters_are_in_it(rows: list[dict[str, Any]]) -> None:
    made = report.as_pdf(rows, "Łifts, “escalated” 電")
    assert made.startswith(b"%PDF-") and made.rstrip().endswith(b"%%EOF")


@pytest.mark.parametrize(
    ("package", "module"), [("fpdf", "report"), ("aiosmtpd", "smtp_server")], ids=["pdf", "mail"]
)
def test_a_missing_package_is_named_with_what_to_install(package: str, module: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = sys.modules['aiosmtpd.controller'] = None\n"
        f"from idemwatch.demo import {module}\n"
        f"{module}.as_pdf([], '')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ConfigurationError" in done.stderr
    assert 'pip install "idemwatch[demo]"' in done.stderr.splitlines()[-1]


def test_a_report_that_cannot_be_written_whole_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report.write_whole(tmp_path / "a.csv", b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "given", "told"),
    [
        (facility_settings.smtp_address, {}, "FACILITY_SMTP: is not set: say HOST:PORT"),
        (facility_settings.smtp_address, {"FACILITY_SMTP": "mail"}, "'mail' is not HOST:PORT"),
        (facility_settings.smtp_address, {"FACILITY_SMTP": "mail:x"}, "'mail:x' is not HOST:PORT"),
        (facility_settings.smtp_address, {"FACILITY_SMTP": "mail:70000"}, "is not HOST:PORT"),
        (facility_settings.report_folder, {}, "FACILITY_REPORT_FOLDER: is not set"),
        (facility_settings.report_folder, {"FACILITY_REPORT_FOLDER": "/no/such"}, "make it"),
        (facility_settings.database_url, {}, "FACILITY_DATABASE_URL: is not set"),
        (facility_settings.schema, {"FACILITY_SCHEMA": "a.b"}, "'a.b' is no plain name"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(
    setting: Any, given: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        setting(given)
    assert told in str(caught.value)


def test_settings_are_read(tmp_path: Path) -> None:
    given = {"FACILITY_SMTP": "[::1]:25", "FACILITY_REPORT_FOLDER": str(tmp_path)}
    assert facility_settings.smtp_address(given) == ("::1", 25)
    assert facility_settings.report_folder(given) == tmp_path
    assert facility_settings.database_url({"IDEMWATCH_DATABASE_URL": "x"}) == "x"
    assert facility_settings.schema({}) == "facility"
