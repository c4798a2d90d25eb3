"""How far a simulation is, at a terminal; elsewhere nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .simulate_play import Progress as Told
from .simulate_play import nothing
from .simulate_report import TITLES


@contextmanager
def bars() -> Iterator[Callable[[str], Told]]:
    """For a side, what is to be told of its play."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _side: nothing
        return
    columns = (
        TextColumn("{task.fields[side]:>12}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:

        def told(side: str) -> Told:
            bar = shown.add_task("starting", total=1.0, side=TITLES[side])
            return lambda phase, part: shown.update(bar, completed=part, description=phase)

        yield told
