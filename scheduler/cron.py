"""A cron expression, read once: bit masks of its fields, and the rule that picks its days.

The masks are all that later steps look at: two expressions with equal masks are one schedule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from .days import EVERY_DAY, EVERY_WEEKDAY, DayRule
from .dialects import DIALECTS, MACROS, VIXIE, Dialect
from .errors import InvalidSchedule
from .fields import FieldError, Parsed, parse_field

LONGEST: Final = 400
"""Characters of an expression: each value of each field named once is shorter."""
SEARCHED_YEARS: Final = 40
"""How far a next day is looked for: a weekday on 29 February comes at least so often."""
_LAST: Final = re.compile(r"L(?:-(?P<before>\d{1,2}))?(?P<nearest>W)?")
_NEAREST: Final = re.compile(r"(?P<day>\d{1,2})W")
_WEEKDAY: Final = re.compile(r"(?P<day>[0-9A-Z]+)(?:#(?P<nth>[1-5])|(?P<last>L))")


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression that was read.

    `seconds`, `minutes`, `hours` are bit masks. `fixed`: neither minutes nor hours begin with `*`,
    which decides how it meets a change of the clock. `zone` is one that the expression itself
    names.
    """

    expression: str
    dialect: str
    seconds: int
    minutes: int
    hours: int
    rule: DayRule
    fixed: bool
    zone: str | None = None

    @property
    def meaning(self) -> tuple[object, ...]:
        """Equal for expressions that run at the same times."""
        return (self.seconds, self.minutes, self.hours, tuple(self.rule), self.fixed)

    def next_day(self, start: date) -> date | None:
        """The first day from `start` on which it runs; None if there is none in 40 years."""
        ahead = self.rule.years >> start.year
        if self.rule.years and not ahead:
            return None
        skipped = (ahead & -ahead).bit_length() - 1 if ahead else 0
        day = max(start, date(start.year + skipped, 1, 1))
        for _ in range(SEARCHED_YEARS * 366):
            if self.rule.fits(day):
                return day
            day += timedelta(1)
        return None


@lru_cache(maxsize=4096)
def parse_cron(expression: str, dialect: str = VIXIE.name, *, seed: str | None = None) -> Cron:
    """Read an expression; `seed` is the schedule's name, which `H` is hashed from.

    Raises InvalidSchedule, which names the field.
    """
    known = DIALECTS.get(dialect)
    if known is None:
        raise InvalidSchedule(
            expression, "dialect", f"{dialect!r} is none of {', '.join(DIALECTS)}"
        )
    if len(expression) > LONGEST:
        raise InvalidSchedule(expression, "expression", f"it has over {LONGEST} characters")
    words = expression.split()
    zone = (
        words.pop()
        if known.zone_suffix and words and "/" in words[-1] and words[-1][0].isalpha()
        else None
    )
    if words and words[0].startswith("@"):
        words = _macro(expression, words, known)
    return _Reader(expression, known, words, seed).read(zone)


def _macro(expression: str, words: list[str], dialect: Dialect) -> list[str]:
    name = words[0].lower()
    if name == "@reboot":
        raise InvalidSchedule(expression, "expression", "@reboot names no time: run it at start")
    if name not in MACROS or len(words) > 1 or not dialect.macros:
        known = ", ".join(MACROS) if dialect.macros else "no such names"
        raise InvalidSchedule(expression, "expression", f"dialect {dialect.name} knows {known}")
    return MACROS[name].split()


class _Reader:
    def __init__(
        self, expression: str, dialect: Dialect, words: list[str], seed: str | None
    ) -> None:
        self.expression, self.dialect, self.seed = expression, dialect, seed
        self.fields = (*dialect.fields, *dialect.optional)[: max(len(words), len(dialect.fields))]
        self._require_count(len(words))
        self.words = dict(zip((field.name for field in self.fields), words, strict=True))

    def _require_count(self, given: int) -> None:
        wanted, most = (
            len(self.dialect.fields),
            len(self.dialect.fields) + len(self.dialect.optional),
        )
        if wanted <= given <= most:
            return
        count = f"{wanted}" if wanted == most else f"{wanted} or {most}"
        names = " ".join(field.name.replace(" ", "-") for field in self.dialect.fields)
        hint = ""
        if given in (6, 7) and most == 5:
            hint = '; seconds and years are of dialect "quartz"'
        raise InvalidSchedule(
            self.expression,
            "expression",
            f"it has {given} fields, dialect {self.dialect.name} has {count}: {names}{hint}",
        )

    def read(self, zone: str | None) -> Cron:
        minute, hour = self._parsed("minute"), self._parsed("hour")
        second = self._parsed("second").mask if "second" in self.words else 1
        return Cron(
            expression=" ".join(self.expression.split()),
            dialect=self.dialect.name,
            seconds=second,
            minutes=minute.mask,
            hours=hour.mask,
            rule=self._rule(),
            fixed=not (minute.starred or hour.starred),
            zone=zone,
        )

    def _parsed(self, name: str, text: str | None = None) -> Parsed:
        (field,) = (field for field in self.fields if field.name == name)
        try:
            return parse_field(self.words[name] if text is None else text, field, seed=self.seed)
        except FieldError as error:
            raise InvalidSchedule(self.expression, name, str(error)) from None

    def _rule(self) -> DayRule:
        if self.dialect.days == "quartz":
            return self._quartz_rule()
        day, weekday = self._parsed("day of month"), self._parsed("day of week")
        either = self.dialect.days == "either" and not (
            self._unrestricted(day) or self._unrestricted(weekday)
        )
        weekdays = (weekday.mask | weekday.mask >> 7) & 0x7F
        return DayRule(day.mask, self._parsed("month").mask, weekdays, either).plain()

    def _unrestricted(self, field: Parsed) -> bool:
        return field.starred and (self.dialect.star_steps or not field.stepped)

    def _quartz_rule(self) -> DayRule:
        day, weekday = self.words["day of month"].upper(), self.words["day of week"].upper()
        if (day == "?") == (weekday == "?"):
            raise InvalidSchedule(
                self.expression, "day of week", "just one of the two day fields must be ?"
            )
        months = self._parsed("month").mask
        years = self._parsed("year").mask if "year" in self.words else 0
        if self.words.get("year") == "*":
            years = 0
        if weekday == "?":
            return self._quartz_days(day, months)._replace(years=years)
        return self._quartz_weekdays(weekday, months)._replace(years=years)

    def _quartz_days(self, text: str, months: int) -> DayRule:
        days, plain = 0, list[str]()
        before_last, nearest = list[int](), list[int]()
        for item in text.split(","):
            if found := _LAST.fullmatch(item):
                if found["nearest"] and found["before"]:
                    raise InvalidSchedule(self.expression, "day of month", f"{item!r} is not read")
                (nearest if found["nearest"] else before_last).append(int(found["before"] or 0))
            elif found := _NEAREST.fullmatch(item):
                day = self._parsed("day of month", found["day"]).mask
                nearest.append(day.bit_length() - 1)
            else:
                plain.append(item)
        if plain:
            days = self._parsed("day of month", ",".join(plain)).mask
        if max(before_last, default=0) > 30:
            raise InvalidSchedule(self.expression, "day of month", "no month has so many days")
        return DayRule(days, months, EVERY_WEEKDAY, False, tuple(before_last), tuple(nearest))

    def _quartz_weekdays(self, text: str, months: int) -> DayRule:
        weekdays, plain, nth = 0, list[str](), list[tuple[int, int]]()
        for item in text.split(","):
            if item == "L":  # as Quartz reads it: Saturday, the last day of its week
                plain.append("7")
            elif found := _WEEKDAY.fullmatch(item):
                mask = self._parsed("day of week", found["day"]).mask
                nth.append((mask.bit_length() - 2, int(found["nth"] or 0)))
            else:
                plain.append(item)
        if plain:
            weekdays = self._parsed("day of week", ",".join(plain)).mask >> 1
        return DayRule(EVERY_DAY, months, weekdays, False, nth=tuple(nth))
