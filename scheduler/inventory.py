"""What a source holds: schedules, and what in it is no schedule, each with its place.

A row that is wrong is a problem, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import InvalidSchedule
from .model import Schedule
from .place import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row. `schedule`: its name, as far as it has one."""

    place: Place
    message: str
    schedule: str = ""

    def __str__(self) -> str:
        named = f"{self.schedule}: " if self.schedule else ""
        return f"{self.place}: {named}{self.message}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """`source`: a file's path, or `table`, `beat`, `redbeat`, `django`. Ids are unique in it.

    `problems`: rows that cannot be read. `doubts`: rows that were read, and are not what they seem.
    """

    source: str
    schedules: tuple[Schedule, ...] = ()
    problems: tuple[Problem, ...] = ()
    doubts: tuple[Problem, ...] = ()


def problem_of(error: InvalidSchedule, place: Place, schedule: str = "") -> Problem:
    """A row's error at its place."""
    return Problem(place, str(error), schedule)


def inventory_of(
    source: str,
    schedules: Iterable[Schedule],
    problems: Iterable[Problem] = (),
    doubts: Iterable[Problem] = (),
) -> Inventory:
    """An inventory with unique ids: those that come again get a number."""
    seen: dict[str, int] = {}
    named = []
    for one in schedules:
        times = seen[one.id] = seen.get(one.id, 0) + 1
        named.append(one if times == 1 else replace(one, id=f"{one.id}#{times}"))
    return Inventory(source, tuple(named), tuple(problems), tuple(doubts))
