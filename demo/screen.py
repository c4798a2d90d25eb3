"""What the demo shows: a live table at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .ledger import Published
from .scoreboard import Row, Score
from .webhook import Notification

LINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class View:
    """One moment of the demo."""

    phase: str
    elapsed_seconds: float
    score: Score
    addresses: Mapping[str, str]
    published: Published
    firing: Set[str] = frozenset()
    pages: int = 0


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, sentence: str) -> None:
        """Show a sentence that stays."""

    def show(self, view: View) -> None:
        """Show a moment, which the next one replaces."""

    def __enter__(self) -> Screen: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class LiveScreen:
    """A table that is drawn again in its place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def say(self, sentence: str) -> None:
        """Print above the table."""
        self._console.print(sentence, markup=False, highlight=False)

    def show(self, view: View) -> None:
        """Draw the table."""
        caption = Text(headline(view), style="bold")
        addresses = Text("\n".join(f"{name}: {url}" for name, url in view.addresses.items()))
        told = Text(alerts(view), style="red" if view.firing else "")
        self._live.update(Group(caption, table(view.score), told, addresses), refresh=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class PlainScreen:
    """One line every other second, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def say(self, sentence: str) -> None:
        """Print a line."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, view: View) -> None:
        """Print a line, if the last one is old enough."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            self.say(f"{headline(view)}; {in_words(view.score.total())}; {alerts(view)}")

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""


def screen_for(console: Console) -> Screen:
    """A live table at a terminal, else lines."""
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


def headline(view: View) -> str:
    """What goes on, in one line."""
    return (
        f"{view.elapsed_seconds:4.0f} s  {view.phase}: {view.published.works} pieces of work in "
        f"{view.published.messages} messages, {view.published.effects} effects, "
        f"{view.score.active} running now"
    )


def alerts(view: View) -> str:
    """What fires, and how often somebody would have been woken."""
    return f"alerts: {', '.join(sorted(view.firing)) or 'none'}; pages so far: {view.pages}"


def delivered(one: Notification) -> str:
    """A notification, as whoever got it reads it."""
    if one.status != "firing":
        return f"resolution delivered: {one.alertname}"
    kind = "page" if one.page else f"alert ({one.severity})"
    told = (one.annotations.get(part, "") for part in ("summary", "description"))
    return f"{kind} delivered: {one.alertname}: {'. '.join(told)}"


def in_words(row: Row) -> str:
    """A row of the table as a sentence."""
    return (
        f"executed {row.executed}, turned away {row.turned_away} "
        f"({row.met_running} met a running one), hit rate {row.hit_rate:.0%}"
    )


def table(score: Score) -> Table:
    """One row for each task, and their sum."""
    drawn = Table("task")
    for heading in ("executed", "turned away", "met a running one", "hit rate"):
        drawn.add_column(heading, justify="right")
    for row in (*score.rows(), score.total()):
        numbers = map(str, (row.executed, row.turned_away, row.met_running))
        drawn.add_row(row.task, *numbers, f"{row.hit_rate:.0%}")
    return drawn
