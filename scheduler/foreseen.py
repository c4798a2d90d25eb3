"""When a schedule runs that no expression tells, as by the sun: what it says itself when asked.

Asking is bounded, and what comes of it is in UTC, in whole seconds, rising.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from .errors import InvalidSchedule

AHEAD: Final = timedelta(days=8)
"""A week, and a day for those who look at it later."""
MOST_RUNS: Final = 100_000
_SECOND: Final = timedelta(seconds=1)
_DUST: Final = timedelta(milliseconds=1)


class _Refused(Exception):
    """The schedule's answers lead nowhere; the text is the reason."""


def foreseen(
    schedule: Any, text: str, now: datetime, *, by_due: bool = False
) -> tuple[datetime, ...]:
    """The runs of a `celery.schedules.BaseSchedule` in the 8 days after `now`.

    It is asked for its `remaining_estimate`, or, `by_due`, for its `is_due` as beat asks. Raises
    InvalidSchedule if it raises, never advances, or runs over 100,000 times.
    """
    ask = _by_due if by_due else _by_estimate
    try:
        zone = schedule.now().tzinfo or UTC
        with _told_the_time(schedule) as tell:
            return tuple(bounded(ask(schedule, tell, now, zone)))
    except _Refused as error:
        raise InvalidSchedule(text, "schedule", str(error)) from None
    except InvalidSchedule as error:
        raise InvalidSchedule(text, error.part, error.problem) from None
    except Exception as error:  # it is anyone's code
        told = f"it cannot say when it runs: {type(error).__name__}: {error}"
        raise InvalidSchedule(text, "schedule", told[:300]) from error


def bounded(runs: Iterator[datetime]) -> Iterator[datetime]:
    """The runs; raises InvalidSchedule when there are too many of them."""
    for number, run in enumerate(runs):
        if number == MOST_RUNS:
            raise InvalidSchedule(
                "", "schedule", f"it runs over {MOST_RUNS:,} times in {AHEAD.days} days"
            )
        yield run


@contextmanager
def _told_the_time(schedule: Any) -> Iterator[Callable[[datetime], None]]:
    """Let the schedule's `now()` answer what it is told; it has its own clock again afterwards.

    It is not copied: a subclass need not know how.
    """
    own, told = getattr(schedule, "nowfun", None), list[datetime]()
    schedule.nowfun = lambda: told[-1]
    try:
        yield told.append
    finally:
        schedule.nowfun = own


def _by_estimate(
    schedule: Any, tell: Callable[[datetime], None], now: datetime, zone: tzinfo
) -> Iterator[datetime]:
    """The clock stands still, so that one which looks at the real clock answers rightly too."""
    tell(now.astimezone(zone))
    last = now
    while True:
        left = schedule.remaining_estimate(last.astimezone(zone))
        if left is None or left > AHEAD:
            return
        run = _whole(now.astimezone(UTC) + left)
        if run <= last:
            raise _Refused(
                f"it never advances: after {last:%Y-%m-%d %H:%M:%S} comes {run:%H:%M:%S}"
            )
        yield run
        last = run


def _by_due(
    schedule: Any, tell: Callable[[datetime], None], now: datetime, zone: tzinfo
) -> Iterator[datetime]:
    """The clock goes on to each time at which it asks to be asked again."""
    moment = last = now.astimezone(UTC)
    for _ in range(MOST_RUNS):
        tell(moment.astimezone(zone))
        is_due, wait = schedule.is_due(last.astimezone(zone))
        if is_due:
            yield _whole(moment - _DUST)
            last = moment
        if wait is None:
            return
        if wait <= 0:
            raise _Refused(f"it never advances: it asks to be asked again in {wait} s")
        moment += timedelta(seconds=min(wait, 2 * AHEAD.total_seconds()))
        if moment > now + AHEAD:
            return
    raise _Refused(f"it asks to be asked over {MOST_RUNS:,} times in {AHEAD.days} days")


def _whole(moment: datetime) -> datetime:
    """The next whole second; itself if it is one."""
    return (moment + _SECOND - timedelta.resolution).replace(microsecond=0)
