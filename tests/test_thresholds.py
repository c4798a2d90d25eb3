"""Thresholds: they can be chosen, and one that is out of range is named."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from idemwatch.alerts.thresholds import RANGES, Thresholds, chosen


def test_nothing_chosen_is_the_default() -> None:
    assert chosen([]) == Thresholds()


def test_some_are_chosen() -> None:
    assert chosen(["hit_rate=0.1", "health=60"]) == Thresholds(hit_rate=0.1, health=60)


def test_each_has_a_range() -> None:
    assert {one.name for one in fields(Thresholds)} == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_out_of_range_is_an_error_that_names_it(name: str, beyond: int) -> None:
    least, most = RANGES[name]
    value = least - 1 if beyond < 0 else most + 1
    with pytest.raises(ValueError, match=rf"{name}: .* is not from"):
        chosen([f"{name}={value}"])


@pytest.mark.parametrize("text", ["hit_rate", "hitrate=0.1", "=1", "", "hot=0.5"])
def test_what_is_no_threshold_is_an_error_with_the_names(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=NUMBER .*duplicates_per_hour"):
        chosen([text])


@pytest.mark.parametrize("text", ["five", "", "0x5"])
def test_what_is_no_number_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"hit_rate: .* is no number"):
        chosen([f"hit_rate={text}"])


def test_nan_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="hit_rate"):
        Thresholds(hit_rate=math.nan)
