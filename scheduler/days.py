"""Which days a schedule runs on."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from typing import Final, NamedTuple

EVERY_DAY: Final = ((1 << 31) - 1) << 1
EVERY_WEEKDAY: Final = 0x7F


class DayRule(NamedTuple):
    """Which days fit. Weekdays: bit 0 is Sunday.

    `either`: both day fields are restricted and one of them suffices. `before_last`: days before a
    month's last (0: the last itself). `nearest`: the weekday nearest to a day (0: to the last).
    `nth`: pairs of weekday and number in the month, 0 for the last.
    """

    days: int
    months: int
    weekdays: int
    either: bool = False
    before_last: tuple[int, ...] = ()
    nearest: tuple[int, ...] = ()
    nth: tuple[tuple[int, int], ...] = ()
    years: int = 0

    def plain(self) -> DayRule:
        """The same days told without a choice, where a full field makes it none."""
        if self.either and (self.days == EVERY_DAY or self.weekdays == EVERY_WEEKDAY):
            return DayRule(EVERY_DAY, self.months, EVERY_WEEKDAY)
        return self

    def fits(self, day: date) -> bool:
        """Whether the schedule runs on `day`."""
        if not self.months >> day.month & 1 or (self.years and not self.years >> day.year & 1):
            return False
        in_month = bool(self.days >> day.day & 1) or self._special_day(day)
        weekday = day.isoweekday() % 7
        in_week = bool(self.weekdays >> weekday & 1) or self._special_weekday(day, weekday)
        return (in_month or in_week) if self.either else (in_month and in_week)

    def _special_day(self, day: date) -> bool:
        if not self.before_last and not self.nearest:
            return False
        length = calendar.monthrange(day.year, day.month)[1]
        if length - day.day in self.before_last:
            return True
        return any(_nearest_weekday(day, one or length, length) for one in self.nearest)

    def _special_weekday(self, day: date, weekday: int) -> bool:
        for wanted, number in self.nth:
            if wanted == weekday:
                last = (day + timedelta(7)).month != day.month
                if number == (day.day + 6) // 7 or (number == 0 and last):
                    return True
        return False


def _nearest_weekday(day: date, target: int, length: int) -> bool:
    """Whether `day` is the weekday nearest to day `target` of its month, within that month."""
    if target > length:
        return False
    weekday = day.replace(day=target).isoweekday()
    moved = target
    if weekday == 6:
        moved = target - 1 if target > 1 else target + 2
    elif weekday == 7:
        moved = target + 1 if target < length else target - 2
    return day.day == moved
