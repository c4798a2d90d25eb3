"""What of an inventory is new to the table, what is there already, and what it cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .errors import InvalidSchedule
from .identity import schedule_hash
from .inventory import Inventory, Problem
from .model import Schedule
from .place import Place
from .rows import storable, values_of


@dataclass(frozen=True, slots=True)
class Import:
    """`known`: how many mean the same as one in the table, or as one before them."""

    new: tuple[Schedule, ...]
    known: int
    refused: tuple[Problem, ...]


def import_of(inventory: Inventory, table: Iterable[Schedule]) -> Import:
    """A schedule of the table that was moved is known by what it was before, too."""
    seen = {meaning for one in table for meaning in _meanings(one)}
    new: list[Schedule] = []
    refused = list(inventory.problems)
    for one in inventory.schedules:
        try:
            meaning = _checked(one)
        except InvalidSchedule as error:
            refused.append(Problem(one.place or Place(inventory.source), str(error), one.label))
            continue
        if meaning not in seen:
            new.append(one)
        seen.add(meaning)
    known = len(inventory.schedules) + len(inventory.problems) - len(refused) - len(new)
    return Import(tuple(new), known, tuple(refused))


def _meanings(one: Schedule) -> Iterator[str]:
    yield schedule_hash(one)
    if one.unmoved is not None:
        yield schedule_hash(replace(one, timing=one.unmoved))


def _checked(one: Schedule) -> str:
    """The meaning of a schedule that a row can hold. Raises InvalidSchedule."""
    values = values_of(one)
    for name, value in values.items():
        if isinstance(value, str) and not storable(value):
            raise InvalidSchedule(one.label, name, "it has a character that no table keeps")
    return str(values["schedule_hash"])
