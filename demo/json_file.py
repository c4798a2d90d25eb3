"""The option --json of the demo's commands: a file that is written when all is over.

Invariant: that it cannot be written is told before minutes were spent, and a full disk leaves the
file as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.report_file import require_folder, write_report

F = TypeVar("F", bound=Callable[..., Any])
OPTION: Final = "--json"


class _File(click.Path):
    """A file that can be written, as far as one can know beforehand."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            require_folder(path)
        except ConfigurationError as error:
            self.fail(error.problem, param, ctx)
        return path


def json_option(what: str) -> Callable[[F], F]:
    """--json FILE, as `json_file`."""
    return click.option(
        OPTION, "json_file", type=_File(dir_okay=False, writable=True), metavar="FILE",
        help=f"Write the {what} to this file too, as JSON.",
    )  # fmt: skip


def write_json(path: Path | None, text: str) -> None:
    """Put the text in place of the file, if one was asked for. Raises ConfigurationError."""
    if path is None:
        return
    try:
        write_report(path, text)
    except ConfigurationError as error:
        raise ConfigurationError(OPTION, error.problem) from error
