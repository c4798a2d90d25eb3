"""All boards: built from their options, as the text that is committed, and written to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]
from idemwatch.alerts import whole_files
from idemwatch.alerts.names import IDEMPOTENCY, OVERVIEW, PIPELINE, SCHEDULES

from . import idempotency_board, overview, pipeline_board, schedules_board, variables
from .layout import Line, placed
from .model import lifted
from .options import Options

TAG: Final = "idemwatch"
CROSSHAIR: Final = 1
"""Graphs share the crosshair."""

Lines = Callable[[Options], list[Line | str]]
_BOARDS: Final[dict[str, tuple[str, Lines, Callable[[], list[Any]]]]] = {
    OVERVIEW: (overview.DESCRIPTION, overview.lines, list),
    IDEMPOTENCY: (idempotency_board.DESCRIPTION, idempotency_board.lines, variables.of_tasks),
    SCHEDULES: (schedules_board.DESCRIPTION, schedules_board.lines, variables.of_schedules),
    PIPELINE: (pipeline_board.DESCRIPTION, pipeline_board.lines, list),
}


def boards(options: Options | None = None) -> dict[str, dict[str, Any]]:
    """The model of each board, by uid."""
    return {uid: board(uid, options or Options()) for uid in _BOARDS}


def board(uid: str, options: Options) -> dict[str, Any]:
    """The model of one board."""
    description, lines, narrowing = _BOARDS[uid]
    return lifted(
        core.Dashboard(
            title=variables.TITLES[uid],
            uid=uid,
            description=description,
            editable=False,
            graphTooltip=CROSSHAIR,
            links=variables.links(uid),
            panels=placed(lines(options)),
            refresh="30s",
            tags=[TAG],
            templating=core.Templating([*variables.common(options), *narrowing()]),
            time=core.Time("now-1h", "now"),
            timezone="browser",
        )
    )


def text(model: dict[str, Any]) -> str:
    """A board as it is committed: sorted, so that a difference is one that matters."""
    return json.dumps(model, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path, options: Options) -> list[Path]:
    """Write each board to UID.json in `folder`, which is made if need be. Raises OSError."""
    files = {f"{uid}.json": text(model) for uid, model in boards(options).items()}
    whole_files.write(folder, files)
    return [folder / name for name in files]
