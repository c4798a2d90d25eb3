"""Inventories: the real ones of tests/data, and fleets as CSV."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
INVENTORIES = sorted(DATA.glob("*.csv"))
HEADER = "name,schedule,dialect,timezone,queue_or_task,duration_estimate_seconds\n"


def csv_file(folder: Path, rows: Iterable[str], name: str = "fleet.csv") -> str:
    """The path of a CSV file with these rows of name,schedule,dialect,timezone,task,seconds."""
    path = folder / name
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows), "utf-8")
    return str(path)


def at_midnight(count: int, task: str = "app.nightly") -> list[str]:
    """So many schedules that all start at midnight."""
    return [f"job {number},0 0 * * *,celery,UTC,{task}_{number},60" for number in range(count)]


def mixed(count: int) -> list[str]:
    """A fleet as there are many: most of it on the full hour, some of it each few minutes."""
    chosen = random.Random(1)
    return [
        f"job {number},{_expression(chosen)},celery,"
        f"{chosen.choice(('UTC', 'America/New_York'))},app.task_{number},{60 * number % 900 + 60}"
        for number in range(count)
    ]


def _expression(chosen: random.Random) -> str:
    minute = chosen.choice((0, 0, 0, 30, chosen.randrange(60)))
    hour, weekday, kind = chosen.randrange(24), chosen.randrange(7), chosen.random()
    if kind < 0.1:
        return f"*/{chosen.choice((5, 10, 15))} * * * *"
    if kind < 0.3:
        return f"{minute} * * * *"
    return f"{minute} {hour} * * {'*' if kind < 0.8 else weekday}"
