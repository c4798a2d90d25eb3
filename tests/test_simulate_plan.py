"""The plan of a simulation is a pure function of seed and options, and keeps the rates."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.demo.simulate_plan import (
    LEASE_SECONDS,
    LONGEST_OUTAGE_SECONDS,
    POINTS,
    STORES,
    Options,
    plan,
)

rates = st.floats(0, 1)
options = st.builds(
    Options,
    seconds=st.floats(1, 60),
    works=st.integers(1, 120),
    duplicates=rates,
    kills=rates,
    redelivery=rates,
    outages=st.floats(0, 0.5),
    workers=st.integers(1, 4),
)
seeds = st.integers(0, 2**31)


@given(seeds, options)
def test_the_same_seed_makes_the_same_plan(seed: int, asked: Options) -> None:
    assert plan(seed, asked) == plan(seed, asked)


def test_another_seed_makes_another_plan() -> None:
    assert len({plan(seed, Options()).works for seed in range(20)}) == 20


@given(seeds, options)
def test_the_rates_are_kept_exactly(seed: int, asked: Options) -> None:
    made = plan(seed, asked)
    count = asked.works
    assert len(made.works) == count
    assert sum(bool(work.copies) for work in made.works) == round(asked.duplicates * count)
    assert sum(work.slow for work in made.works) == round(asked.redelivery * count)
    dying = [work for work in made.works if work.death is not None]
    assert len(dying) == round(asked.kills * count)
    assert made.deaths == len(dying) + len(made.idle_kills)
    assert made.messages == count + sum(len(work.copies) for work in made.works)


@given(seeds, options)
def test_everything_happens_while_it_is_published(seed: int, asked: Options) -> None:
    made = plan(seed, asked)
    times = [work.at for work in made.works]
    assert times == sorted(times)
    assert [work.number for work in made.works] == list(range(1, asked.works + 1))
    moments = [*times, *(at for at, _ in made.idle_kills)]
    assert all(0 <= at <= asked.seconds + 0.001 for at in moments)
    assert all(copy.after >= 0 for work in made.works for copy in work.copies)
    assert {worker for _, worker in made.idle_kills} <= set(range(asked.workers))
    assert {work.death.point for work in made.works if work.death} <= set(POINTS)


@given(seeds, options)
def test_outages_come_one_after_the_other_and_end_before_a_lease(seed: int, asked: Options) -> None:
    outages = plan(seed, asked).outages
    assert bool(outages) == (asked.outages > 0)
    assert {one.store for one in outages} <= set(STORES)
    assert sum(one.lasts for one in outages) <= asked.outages * asked.seconds + 0.01
    assert all(one.lasts <= LONGEST_OUTAGE_SECONDS < LEASE_SECONDS for one in outages)
    for one, following in pairwise(outages):
        assert one.at + one.lasts <= following.at + 0.01
        assert one.store != following.store


@pytest.mark.parametrize("seed", range(1, 4))
def test_the_default_plan_makes_every_kind_of_trouble(seed: int) -> None:
    made = plan(seed, Options())
    deaths = [work.death for work in made.works if work.death is not None]
    assert {death.point for death in deaths} == set(POINTS)
    assert {death.whole_worker for death in deaths} == {False, True}
    assert {one.store for one in made.outages} == set(STORES)
    assert {copy.same_id for work in made.works for copy in work.copies} == {False, True}
    assert made.idle_kills and any(work.slow for work in made.works)


def test_without_trouble_there_is_only_work() -> None:
    calm = Options(duplicates=0, kills=0, redelivery=0, outages=0)
    made = plan(1, calm)
    assert made.messages == calm.works
    assert (made.deaths, made.outages, made.idle_kills) == (0, (), ())
    assert not any(work.slow for work in made.works)
