"""Colours, limits, mapped values and the texts that stand where there is nothing to show.

Grafana colours a value from a step's value on (>=), while the alerts fire over a limit (>): so a
step stands at the first number over it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

GREEN: Final = "green"
YELLOW: Final = "yellow"
ORANGE: Final = "orange"
RED: Final = "red"
BLUE: Final = "blue"
TEXT: Final = "text"
CLEAR: Final = "transparent"

NO_ANSWER: Final = "Choose a source"
NO_STATE: Final = "No exporter"
NO_WORKERS: Final = "No worker's metrics here"
UNKNOWN: Final = "-1"
"""The value that stands for no answer, in bands of colour."""
ABSENT: Final = "–"
"""A cell with nothing in it."""

GRADES: Final = ("A", "B", "C", "D", "F")
GRADE_COLOURS: Final = dict(zip(GRADES, (GREEN, "light-green", YELLOW, ORANGE, RED), strict=True))
VERDICTS: Final = {
    "A": "A: excellent, nothing to do",
    "B": "B: good, small gains are possible",
    "C": "C: fair, read the recommendations",
    "D": "D: poor, move schedules apart",
    "F": "F: schedules collide, act now",
}

Step = tuple[float, str]


def over_ratio(limit: float) -> float:
    """The first number over `limit`."""
    return math.nextafter(limit, math.inf)


def over_count(limit: float) -> float:
    """The first whole number over `limit`."""
    return math.floor(limit) + 1


def steps(base: str, *more: Step) -> dict[str, Any]:
    """Thresholds: `base`, and each colour from its value on.

    The base has a number too, as Grafana 12 writes it: without one, not every version takes it
    for the smallest.
    """
    lowest = min([0.0, *(value for value, _ in more)])
    # An int where it is whole: 70, not 70.0, as Grafana writes numbers.
    every = [(lowest, base), *(one for one in more if one[0] > lowest)]
    return {"mode": "absolute", "steps": [{"color": c, "value": tidy(v)} for v, c in every]}


def tidy(value: float) -> float:
    """A whole number without its fraction."""
    return int(value) if float(value).is_integer() else value


def mapped(texts: Mapping[str, str], colours: Mapping[str, str] | None = None) -> list[Any]:
    """Value mappings: what stands for a value, and in which colour."""
    colours = colours or {}
    options = {
        value: {"index": index, "text": text}
        | ({"color": colours[value]} if value in colours else {})
        for index, (value, text) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def by_grade(texts: Mapping[str, str], colours: Mapping[str, str] | None = None) -> list[Any]:
    """Mappings of the numbers that stand for grades: 1 for A to 5 for F."""
    numbers = {str(number): grade for number, grade in enumerate(GRADES, 1)}
    chosen = {number: colours[grade] for number, grade in numbers.items()} if colours else None
    return mapped({number: texts[grade] for number, grade in numbers.items()}, chosen)
