"""Cron expressions: each term of each field, the days, and what is refused and why."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim
from hypothesis import assume, given
from hypothesis import strategies as st
from idemwatch.scheduler import fields
from idemwatch.scheduler.cron import LONGEST, parse_cron
from idemwatch.scheduler.dialects import DIALECTS
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.fields import Field, parse_field
from idemwatch.scheduler.occurrences import bits, occurrences

DATA = Path(__file__).with_name("data")
FIELDS = (fields.MINUTE, fields.HOUR, fields.DAY, fields.MONTH, fields.WEEKDAY_TO_7)
each_field = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
KINDS = {
    (field.name, field.low, field.high, field.wraps, field.open_steps): field
    for dialect in DIALECTS.values()
    for field in (*dialect.fields, *dialect.optional)
}
"""Every kind of field that any dialect has."""


def values(text: str, field: Field) -> list[int]:
    return bits(parse_field(text, field).mask)


def weekdays(expression: str, dialect: str = "vixie") -> list[int]:
    return bits(parse_cron(expression, dialect).rule.weekdays)


# -- each term of each field -----------------------------------------------------------------------


@pytest.mark.parametrize("field", KINDS.values(), ids=lambda one: f"{one.name} {one.wraps}")
def test_every_term_of_every_dialect_is_the_values_that_it_says(field: Field) -> None:
    """Each a, a-b, *, */n, a-b/n and a/n that there is, against counting on fingers."""
    steps = range(1, field.high - field.low + 2)
    some = steps if len(steps) <= 60 else (1, 2, 7, len(steps))
    assert mask("*", field) == fingers(field.low, field.high, 1, field)
    for step in steps:
        assert mask(f"*/{step}", field) == fingers(field.low, field.high, step, field)
    for first in range(field.low, field.high + 1):
        assert mask(f"{first}", field) == 1 << first
        for step in steps:
            told = mask(f"{first}/{step}", field)
            assert told == (fingers(first, field.high, step, field) if field.open_steps else None)
        for last in range(field.low, field.high + 1):
            runs = first <= last or field.wraps
            way = around(first, last, field) if runs else []
            assert mask(f"{first}-{last}", field) == (bit_mask(way) if runs else None)
            for step in some:
                got = mask(f"{first}-{last}/{step}", field)
                assert got == (bit_mask(way[::step]) if runs else None)


def mask(text: str, field: Field) -> int | None:
    """What is read; None if it is refused."""
    try:
        return parse_field(text, field).mask
    except fields.FieldError:
        return None


def bit_mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def fingers(first: int, last: int, step: int, field: Field) -> int:
    return bit_mask(n for n in range(first, last + 1) if (n - first) % step == 0)


def around(first: int, last: int, field: Field) -> list[int]:
    """From one value on to another, over the end; Sunday, which is 0 and 7, is met once."""
    if first <= last:
        return list(range(first, last + 1))
    week = (field.low, field.high) == (0, 7)
    way = [*range(first, field.high + 1), *range(field.low, last + 1)]
    return [n for n in way if n != 0] if week else way


@each_field
def test_every_term_is_what_croniter_reads_where_it_is_right(field: Field) -> None:
    span, at = range(field.low, field.high + 1), FIELDS.index(field)
    terms = [f"{first}-{last}" for first, last in itertools.combinations(span, 2)]
    terms += [f"{term}/{step}" for term in terms[:: len(span) // 7] for step in range(1, len(span))]
    terms += ["*", *map(str, span), *(f"*/{step}" for step in range(1, len(span) + 1))]
    if field is not fields.WEEKDAY_TO_7:
        terms += [f"{first}/{step}" for first in span for step in range(1, len(span) + 1)]
    for term in terms:
        words = ["*"] * 5
        words[at] = term
        theirs = croniter.expand(" ".join(words))[0][at]
        read = {one for one in span if theirs == ["*"] or one in theirs}
        week = field is fields.WEEKDAY_TO_7
        assert {n % 7 if week else n for n in values(term, field)} == {
            n % 7 if week else n for n in read
        }, term


def expanded(expression: str) -> list[list[int | str]]:
    """What croniter reads: minutes, hours, days, months, weekdays."""
    return [list(one) for one in croniter.expand(expression)[0]]


ALL: list[int | str] = ["*"]


@pytest.mark.parametrize(
    ("expression", "at", "theirs", "ours"),
    [
        ("5-5 * * * *", 0, ALL, [5]),
        ("0 1-1 * * *", 1, ALL, [1]),
        ("0 0 9-9 * *", 2, ALL, [9]),
        ("0 0 * * 5-5", 4, ALL, [5]),
        ("0 0 * * 1-1", 4, ALL, [1]),
        ("0 0 * * 7/1", 4, ALL, [0]),
        ("0 0 * * 1/6", 4, [1], [0, 1]),
        ("0 0 * * 1/2", 4, [1, 3, 5], [0, 1, 3, 5]),
    ],
)
def test_terms_that_croniter_reads_wrong_are_read_as_vixie_cron_does(
    expression: str, at: int, theirs: list[int | str], ours: list[int]
) -> None:
    assert expanded(expression)[at] == theirs, "croniter has mended it: the oracle may be wider"
    cron = parse_cron(expression)
    read = (cron.minutes, cron.hours, cron.rule.days, cron.rule.months, cron.rule.weekdays)
    assert bits(read[at]) == ours


def test_a_stepped_wrap_goes_on_counting_over_the_end_which_croniter_does_not() -> None:
    assert expanded("0 22-6/3 * * *")[1] == [2, 5, 22]
    assert bits(parse_cron("0 22-6/3 * * *", "celery").hours) == [1, 4, 22]
    assert weekdays("0 0 * * 5-2/2", "sidekiq") == [0, 2, 5], "one Sunday on the way"


@each_field
def test_a_step_from_the_last_value_is_that_value(field: Field) -> None:
    """What croniter made of it changed in its 7.0."""
    for step in range(1, field.high - field.low + 2):
        assert values(f"{field.high}/{step}", field) == [field.high]


def test_nearest_weekdays_and_days_that_never_come_are_lost_by_croniter_only() -> None:
    assert expanded("0 0 15W * *")[2] == [15], "the W is lost"
    assert days("0 0 0 15W * ?", "quartz")[1] == "02-16"
    assert croniter.is_valid("0 0 30 2 *") and not croniter.is_valid("0 0 30 2 *", strict=True)
    assert parse_cron("0 0 30 2 *").next_day(date(2026, 1, 1)) is None


@each_field
def test_what_is_beyond_the_field_is_refused(field: Field) -> None:
    over, under = field.high + 1, field.low - 1
    wrong = [f"{over}", f"{over}-{over}", f"{field.low}-{over}", f"*/{over - field.low + 1}", "*/0"]
    wrong += ["", ",", "1,", "*-2", "a", "1-", "-1", "1//2", "*/", "1.5", "H", "**", "1-2-3", "1 2"]
    wrong += [f"{under}"] if under >= 0 else []
    for text in wrong:
        with pytest.raises(fields.FieldError):
            parse_field(text, field)


def test_names_stand_for_their_numbers() -> None:
    assert values("jan,Mar,DEC", fields.MONTH) == [1, 3, 12]
    assert weekdays("0 0 * * mon-FRI") == [1, 2, 3, 4, 5]
    assert weekdays("0 0 * * 0") == weekdays("0 0 * * 7") == weekdays("0 0 * * SUN") == [0]
    with pytest.raises(InvalidSchedule, match="MONDAY"):
        parse_cron("0 0 * * monday")


def test_a_range_over_the_end_wraps_where_its_cron_has_it_so() -> None:
    assert bits(parse_cron("0 22-6 * * *", "celery").hours) == [*range(7), 22, 23]
    assert weekdays("0 0 * * 5-7") == weekdays("0 0 * * fri-sun", "sidekiq") == [0, 5, 6]
    assert weekdays("0 0 * * fri-mon", "sidekiq") == [0, 1, 5, 6]
    for dialect in ("vixie", "k8s"):
        with pytest.raises(InvalidSchedule, match="runs backwards: say 22-23,0-6"):
            parse_cron("0 22-6 * * *", dialect)


# -- days ------------------------------------------------------------------------------------------


def days(expression: str, dialect: str = "vixie", start: date = date(2026, 1, 1)) -> list[str]:
    rule = parse_cron(expression, dialect).rule
    year = (start + timedelta(n) for n in range(365))
    return [f"{day:%m-%d}" for day in year if rule.fits(day)]


def test_two_restricted_day_fields_are_or_in_cron_and_and_in_celery() -> None:
    either = days("0 0 13 * 5")
    assert len(either) == 12 + 52 - len(days("0 0 13 * 5", "celery"))
    assert days("0 0 13 * 5", "celery") == ["02-13", "03-13", "11-13"]
    assert days("0 0 13 * 5", "k8s") == days("0 0 13 * 5", "sidekiq") == either


def test_a_stepped_star_restricts_in_some_crons_only() -> None:
    assert days("0 0 */2 * 1") == days("0 0 1-31/2 * 1", "celery")
    assert len(days("0 0 */2 * 1", "k8s")) > 180


@pytest.mark.parametrize(
    ("expression", "some"),
    [
        ("0 0 0 L * ?", ["01-31", "02-28", "03-31"]),
        ("0 0 0 L-3 * ?", ["01-28", "02-25", "03-28"]),
        ("0 0 0 LW * ?", ["01-30", "02-27", "03-31"]),
        ("0 0 0 15W * ?", ["01-15", "02-16", "03-16"]),
        ("0 0 0 1W * ?", ["01-01", "02-02", "03-02"]),
        ("0 0 0 ? * 6L", ["01-30", "02-27", "03-27"]),
        ("0 0 0 ? * 2#1", ["01-05", "02-02", "03-02"]),
        ("0 0 0 ? * MON#5", ["03-30", "06-29", "08-31"]),
    ],
)
def test_days_of_quartz(expression: str, some: list[str]) -> None:
    assert days(expression, "quartz")[:3] == some


def test_years_of_quartz_end_the_schedule() -> None:
    once = parse_cron("0 0 0 ? 1 1 2030", "quartz")
    found = occurrences(once, UTC, datetime(2026, 1, 1, tzinfo=UTC))
    assert [moment.date() for moment in found] == [date(2030, 1, n) for n in (6, 13, 20, 27)]


def test_a_day_that_never_comes_is_found_out() -> None:
    assert parse_cron("0 0 30 2 *").next_day(date(2026, 1, 1)) is None
    assert parse_cron("0 0 29 2 *").next_day(date(2026, 1, 1)) == date(2028, 2, 29)
    assert parse_cron("0 0 29 2 1", "celery").next_day(date(2026, 1, 1)) == date(2044, 2, 29)


# -- whole expressions -----------------------------------------------------------------------------


def test_one_meaning_however_it_is_written() -> None:
    same = ["@daily", "00 00 * * *", "0 0 1-31 * *", "0 0 * 1-12 0-6", "@midnight", "0\t0 * * *"]
    assert len({parse_cron(text).meaning for text in same}) == 1
    assert parse_cron("0 1 * * *").meaning != parse_cron("@daily").meaning


def test_a_hashed_field_is_the_schedules_own_and_stays_the_same() -> None:
    one, other = (parse_cron("H H * * *", seed=name) for name in ("one", "other"))
    assert one.meaning == parse_cron("H H * * *", seed="one").meaning != other.meaning
    hashed = bits(parse_cron("H(10-20)/5 * * * *", seed="one").minutes)
    assert len(hashed) in (2, 3) and {b - a for a, b in itertools.pairwise(hashed)} == {5}
    with pytest.raises(InvalidSchedule, match="needs the name"):
        parse_cron("H * * * *")


@pytest.mark.parametrize(
    ("expression", "dialect", "part", "said"),
    [
        ("", "vixie", "expression", "0 fields"),
        ("* * * *", "vixie", "expression", "4 fields"),
        ("0 0 * * * *", "vixie", "expression", "quartz"),
        ("0 0 * * * *", "celery", "expression", "6 fields"),
        ("* * * * *", "quartz", "expression", "6 or 7"),
        ("* * * * * *", "quartz", "day of week", "must be \\?"),
        ("61 * * * *", "vixie", "minute", "61 is not in 0-59"),
        ("* 24 * * *", "vixie", "hour", "24 is not in 0-23"),
        ("* * 0 * *", "vixie", "day of month", "0 is not in 1-31"),
        ("* * * foo *", "vixie", "month", "'FOO' is no value"),
        ("@reboot", "vixie", "expression", "names no time"),
        ("@fortnightly", "vixie", "expression", "@weekly"),
        ("@daily", "quartz", "expression", "no such names"),
        ("* * * * *", "cobol", "dialect", "vixie, celery"),
        ("5/10 * * * *", "celery", "minute", "say 5-59/10"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(
    expression: str, dialect: str, part: str, said: str
) -> None:
    with pytest.raises(InvalidSchedule, match=said) as caught:
        parse_cron(expression, dialect)
    assert caught.value.part == part and caught.value.expression == expression


def test_a_list_without_end_is_refused_at_once() -> None:
    with pytest.raises(InvalidSchedule, match=f"over {LONGEST}") as caught:
        parse_cron(",".join(["1"] * 40_000) + " * * * *")
    assert len(str(caught.value)) < 200


@given(st.text(max_size=60), st.sampled_from(sorted(DIALECTS)))
def test_any_text_is_read_or_refused_in_our_words(text: str, dialect: str) -> None:
    with suppress(InvalidSchedule):
        assert parse_cron(text, dialect).dialect == dialect


def _term(field: Field) -> st.SearchStrategy[str]:
    numbers = st.integers(field.low, field.high)
    steps = st.integers(1, field.high - field.low)
    # Of one value, as 0-0/1, both peers read a range as the whole field, and croniter takes a range
    # over the whole field for no restriction, which matters where both day fields have one.
    ranges = (
        st.tuples(numbers, numbers)
        .map(sorted)
        .filter(lambda pair: 0 < pair[1] - pair[0] < field.high - field.low)
    )
    return st.one_of(
        st.just("*"),
        numbers.map(str),
        ranges.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(ranges, steps).map(lambda got: f"{got[0][0]}-{got[0][1]}/{got[1]}"),
        st.tuples(numbers, numbers).map(lambda pair: f"{pair[0]},{pair[1]}"),
    )


expressions = st.tuples(*map(_term, (*FIELDS[:4], fields.WEEKDAY))).map(" ".join)


@given(expressions, st.integers(0, 5 * 366 * 1440))
def test_runs_are_those_of_cronsim(expression: str, minutes: int) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    found = occurrences(parse_cron(expression), UTC, start)
    ours = list(itertools.islice(found, 20))
    assume(ours)
    try:
        theirs = list(itertools.islice(CronSim(expression, start), 20))
    except StopIteration:
        theirs = []
    assert ours[: len(theirs)] == theirs and len(ours) >= len(theirs)


@given(expressions, st.integers(0, 5 * 366 * 1440))
def test_runs_are_those_of_croniter(expression: str, minutes: int) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    runs = croniter(expression, start, max_years_between_matches=9)
    for ours in itertools.islice(occurrences(parse_cron(expression), UTC, start), 20):
        try:
            assert runs.get_next(datetime) == ours
        except CroniterBadDateError:
            assert ours > start + timedelta(days=8 * 365)
            break


# -- real inventories ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.csv")))
def test_rows_of_real_inventories_are_read_but_for_those_that_are_wrong(name: str) -> None:
    wrong = []
    with (DATA / f"{name}.csv").open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            if not row["schedule"].startswith("every "):
                try:
                    parse_cron(row["schedule"], row["dialect"])
                except InvalidSchedule as error:
                    wrong.append((line, error.part))
    expected = [(line, "expression") for line in (65, 67, 69, 71, 73, 75)]
    assert wrong == (expected if name == "fedora_cron_d" else [])
