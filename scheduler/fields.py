"""One field of a cron expression as a bit mask: bit n is set when n matches.

Strict: what a dialect's own cron would refuse, or read as something that nobody means, is refused
with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

_ITEM: Final = re.compile(
    r"(?P<any>[*?])?(?P<hash>H(?:\((?P<low>\d+)-(?P<high>\d+)\))?)?"
    r"(?P<first>\d+|[A-Z]+)?(?:-(?P<last>\d+|[A-Z]+))?(?:/(?P<step>\d+))?"
)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV",
                  "DEC")  # fmt: skip
_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTH_NAMES: Final = {name: number for number, name in enumerate(_MONTHS, 1)}
_DAY_NAMES: Final = {name: number for number, name in enumerate(_DAYS)}


class FieldError(ValueError):
    """A field cannot be read; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field's name, its lowest and highest value, and the names of values."""

    name: str
    low: int
    high: int
    names: Mapping[str, int]
    wraps: bool = False
    """Whether a range may run over the end, as 22-6."""
    open_steps: bool = True
    """Whether 5/10 stands for 5-59/10."""

    @property
    def all(self) -> int:
        """The mask of `*`."""
        return ((1 << (self.high - self.low + 1)) - 1) << self.low


SECOND: Final = Field("second", 0, 59, {})
MINUTE: Final = Field("minute", 0, 59, {})
HOUR: Final = Field("hour", 0, 23, {})
DAY: Final = Field("day of month", 1, 31, {})
MONTH: Final = Field("month", 1, 12, _MONTH_NAMES)
WEEKDAY: Final = Field("day of week", 0, 6, _DAY_NAMES)
WEEKDAY_TO_7: Final = Field("day of week", 0, 7, _DAY_NAMES)
QUARTZ_WEEKDAY: Final = Field(
    "day of week", 1, 7, {name: number + 1 for name, number in _DAY_NAMES.items()}
)
YEAR: Final = Field("year", 1970, 2199, {})


class Parsed(NamedTuple):
    """A field's mask, and whether it begins with a `*` or `?`."""

    mask: int
    starred: bool
    stepped: bool


def parse_field(text: str, field: Field, *, seed: str | None = None) -> Parsed:
    """The values of a field. `seed` is what `H` is hashed from. Raises FieldError."""
    mask, items = 0, text.upper().split(",")
    for item in items:
        found = _ITEM.fullmatch(item)
        if found is None or not item:
            raise FieldError(_misread(item, text))
        mask |= _item_mask(found, field, seed, len(items) > 1)
    starred = items[0][0] in "*?"
    return Parsed(mask, starred, starred and "/" in items[0])


def _item_mask(found: re.Match[str], field: Field, seed: str | None, listed: bool) -> int:
    given = found.groupdict()
    step = _step(given["step"], field)
    kinds = [name for name in ("any", "hash", "first") if given[name]]
    if len(kinds) != 1 or (given["last"] and kinds != ["first"]):
        raise FieldError(_misread(found.string, found.string))
    if given["any"]:
        if listed and given["any"] == "?":
            raise FieldError("? stands alone")
        return _range(field.low, field.high, step or 1)
    if given["hash"]:
        return _hashed(given, field, seed, step)
    first = _value(given["first"], field)
    if given["last"]:
        return _span(first, _value(given["last"], field), step or 1, field)
    if step is None:
        return 1 << first
    if not field.open_steps:
        raise FieldError(f"a step needs a range: say {first}-{field.high}/{step}")
    return _range(first, field.high, step)


def _span(first: int, last: int, step: int, field: Field) -> int:
    if first <= last:
        return _range(first, last, step)
    if not field.wraps:
        raise FieldError(
            f"{first}-{last} runs backwards: say {first}-{field.high},{field.low}-{last}"
        )
    sunday_twice = field.high - field.low == 7  # as 0 and 7, which is one day of the way round
    values = [*range(first, field.high + 1), *range(field.low + sunday_twice, last + 1)]
    return sum(1 << value for value in values[::step])


def _range(first: int, last: int, step: int) -> int:
    return sum(1 << value for value in range(first, last + 1, step))


def _hashed(
    given: Mapping[str, str | None], field: Field, seed: str | None, step: int | None
) -> int:
    """Jenkins' H: a value of the schedule's own, the same in every process."""
    if seed is None:
        raise FieldError("H needs the name of its schedule")
    low = _value(given["low"], field) if given["low"] else field.low
    high = _value(given["high"], field) if given["high"] else field.high
    if field.name == DAY.name and not given["high"]:
        high = 28  # so that it fires in each month, as Jenkins has it
    if low > high:
        raise FieldError(f"H({low}-{high}) runs backwards")
    digest = blake2b(
        f"{field.name}:{seed}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    number = int.from_bytes(digest, "big")
    if step is None:
        return 1 << (low + number % (high - low + 1))
    return _range(low + number % min(step, high - low + 1), high, step)


def _step(text: str | None, field: Field) -> int | None:
    if text is None:
        return None
    step = int(text)
    if step == 0:
        raise FieldError("a step of 0 never ends")
    if step > field.high - field.low + 1:
        raise FieldError(f"a step of {step} is longer than the field")
    return step


def _value(text: str, field: Field) -> int:
    if text.isdecimal():
        value = int(text)
    elif text in field.names:
        value = field.names[text]
    else:
        known = f"; it knows {', '.join(field.names)}" if field.names else ""
        raise FieldError(f"{text!r} is no value of it{known}")
    if not field.low <= value <= field.high:
        raise FieldError(f"{value} is not in {field.low}-{field.high}")
    return value


def _misread(item: str, text: str) -> str:
    return f"{item!r} cannot be read" if item else f"{text!r} has an empty item"
