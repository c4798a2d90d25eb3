"""Reports of the facility application: asked of the tables, rendered, and written whole or not at
all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.whole_file import replace_whole

from .facility_settings import BadInput, day_of, report_folder, text_of
from .facility_store import Connection, Row, in_schema, rows_of

REPORTS: Final[Mapping[str, bytes]] = {
    "open_jobs": in_schema("""
SELECT id, identifier, asset_id, client_id, uptodate FROM facility.job
 WHERE status IN ('PENDING', 'IN_PROGRESS') AND fromdate <= %(day)s
   AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s) ORDER BY id
"""),
    "closed_jobs": in_schema("""
SELECT job.id, identifier, client_id, day FROM facility.job_closing JOIN facility.job
    ON job.id = job_id
 WHERE day = %(day)s
   AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s) ORDER BY job.id
"""),
    "escalations": in_schema("""
SELECT ticket.id, title, client_id, level, day FROM facility.ticket_escalation
  JOIN facility.ticket ON ticket.id = ticket_id
 WHERE day = %(day)s
   AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s) ORDER BY ticket.id, level
"""),
}
PARAMS: Final = ("day", "client_id", "title")
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)."""
LONGEST: Final = 100
_CELL: Final = 60


def report_rows(connection: Connection, name: str, params: Mapping[str, Any]) -> list[Row]:
    """The lines of a report. `params`: day, and if wanted client_id and title. Raises BadInput."""
    if name not in REPORTS:
        raise BadInput("report_name", f"{name!r:.60} is none of {', '.join(REPORTS)}")
    unknown = sorted(set(map(str, params)) - set(PARAMS))
    if unknown:
        raise BadInput("params", f"{unknown[0]!r:.60} is none of {', '.join(PARAMS)}")
    for text in ("client_id", "title"):
        if len(text_of(f"params: {text}", params.get(text, ""))) > LONGEST:
            raise BadInput("params", f"{text} is no text of {LONGEST} letters at most")
    given = {"day": day_of(params.get("day")), "client_id": params.get("client_id")}
    return rows_of(connection, REPORTS[name], given)


def title_of(name: str, params: Mapping[str, Any]) -> str:
    """What stands above a report."""
    return str(params.get("title") or f"{name} of {params['day']}")


def render(rows: Sequence[Row], title: str, format: str, file_name: str) -> Path:  # noqa: A002
    """Write a report as `file_name` into the folder of reports; the same name is replaced.

    Raises BadInput for an unknown format, ConfigurationError without the folder, OSError.
    """
    return write_whole(report_folder() / f"{file_name}.{format}", renderer(format)(rows, title))


def renderer(format: str) -> Callable[[Sequence[Row], str], bytes]:  # noqa: A002
    """What renders a format. Raises BadInput for an unknown one."""
    if format not in FORMATS:
        raise BadInput("format", f"{format!r} is none of {', '.join(FORMATS)}")
    return FORMATS[format]


def as_csv(rows: Sequence[Row], _title: str = "") -> bytes:
    """Comma-separated, with a line of headings; no cell is taken for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(rows[0] if rows else ["nothing"])
    writer.writerows([_plain(value) for value in row.values()] for row in rows)
    return out.getvalue().encode()


def as_pdf(rows: Sequence[Row], title: str) -> bytes:
    """One table. Letters that the built-in fonts lack (beyond Latin-1) become question marks."""
    pdf = _new_pdf()
    pdf.set_title(_latin(title))
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 14)
    pdf.cell(0, 10, _latin(title), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", size=9)
    if not rows:
        pdf.cell(0, 10, "Nothing to report.")
        return bytes(pdf.output())
    with pdf.table() as table:
        for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
            table.row([_latin(_shown(cell))[:_CELL] for cell in cells])
    return bytes(pdf.output())


def _new_pdf() -> Any:
    try:
        from fpdf import FPDF  # takes a third of a second, and only this task needs it
    except ImportError as error:
        told = 'need fpdf2: pip install "idemwatch[demo]"'
        raise ConfigurationError("reports as PDF", told) from error
    return FPDF()


FORMATS: Final[Mapping[str, Callable[[Sequence[Row], str], bytes]]] = {
    "pdf": as_pdf,
    "csv": as_csv,
}


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file so that nobody ever reads half of it, even if we die in between."""
    replace_whole(path, content)
    return path


def _plain(value: Any) -> str:
    text = _shown(value)
    dangerous = isinstance(value, str) and text.startswith(FORMULA)
    return f"'{text}" if dangerous else text


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, date) else str(value)


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")
