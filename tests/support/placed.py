"""Inventories as the tests of files compare them: what is where."""

from __future__ import annotations

import re

from idemwatch.scheduler.inventory import Inventory

_LINE_END = re.compile("\r\n|\r|\n")


def problems_of(inventory: Inventory) -> list[tuple[int, int, str]]:
    """Line, column and message of each problem."""
    return [(one.place.line, one.place.column, one.message) for one in inventory.problems]


def assert_placed(inventory: Inventory, text: str) -> None:
    """Each problem and each schedule has a line within the text, and ids are unique."""
    lines = len(_LINE_END.split(text))
    places = [one.place for one in inventory.problems]
    places += [one.place for one in inventory.schedules if one.place is not None]
    assert len(places) == len(inventory.problems) + len(inventory.schedules)
    for place in places:
        assert place.source == inventory.source
        assert 1 <= place.line <= lines
    ids = [one.id for one in inventory.schedules]
    assert len(set(ids)) == len(ids)
