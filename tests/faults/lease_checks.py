"""Checks of leases: who held a key when, by what the holders themselves could know.

Soundness: stores, ledger and workers share one machine's clock; a store's time is converted once
per round, so MARGIN covers what that conversion may be off. What was not seen (a grant before a
kill, a renewal before a freeze) only makes a lease shorter here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Final

from .breach import (
    FENCE,
    LATE_WRITES,
    NO_CRASH,
    ONE_HOLDER,
    OWN_CLAIM,
    REPEATED,
    STALE,
    WAITING,
    Breach,
)
from .history import History, Holding
from .ledger import Event

MARGIN: Final = 0.05
FAULT_TAIL_SECONDS: Final = 8.0
"""How long after its end a fault may still be why a lease was not renewed: time-outs, breakers."""


def one_holder(history: History) -> Iterator[Breach]:
    """A key is granted only after the lease before it has run out or was given back."""
    for key, holdings in history.holdings.items():
        for first, second in combinations(holdings, 2):
            until = min(first.live_until, first.ended) - MARGIN
            if second.granted >= until:
                continue
            if not history.severed(key, first.authority, first.granted, second.granted):
                early = until - second.granted
                told = f"{_who(second)} was granted {early:.3f} s before {_who(first)} was over"
                yield Breach(ONE_HOLDER, key, told)


def checks_hold(history: History) -> Iterator[Breach]:
    """Nobody is told that the key is his when another was granted it before he asked."""
    for key, holdings in history.holdings.items():
        for first, second in combinations(holdings, 2):
            for event in first.events:
                if event.kind != "check" or event.data["began"] < second.granted + MARGIN:
                    continue
                if not history.severed(key, first.authority, first.granted, event.mono):
                    told = f"{_who(first)} may begin an effect although {_who(second)} came after"
                    yield Breach(ONE_HOLDER, key, told)
                    return


def fences_grow(history: History) -> Iterator[Breach]:
    """Each holder has a higher fence than the one before."""
    for key, holdings in history.holdings.items():
        for first, second in pairwise(holdings):
            if second.fence <= first.fence:
                told = f"{_who(second)} has fence {second.fence}, after fence {first.fence}"
                yield Breach(FENCE, key, told)


def late_writes(history: History) -> Iterator[Breach]:
    """What the target took is in the order of its holders."""
    newest: dict[str, Holding] = {}
    for key, owner, _ in history.target:
        holding = history.owner(key, owner)
        if holding is None:
            continue
        before = newest.setdefault(key, holding)
        if holding.granted < before.granted - MARGIN:
            told = f"the target took the write of {_who(holding)} after that of {_who(before)}"
            yield Breach(LATE_WRITES, key, told)
        newest[key] = holding


def stale_refused(history: History) -> Iterator[Breach]:
    """What is no longer the holder's to end is not ended by him."""
    for key, holdings in history.holdings.items():
        for first, second in combinations(holdings, 2):
            for event in first.events:
                taken = event.kind == "ended" and event.data["said"] in ("stored", "True")
                if not taken or event.data["began"] < second.granted + MARGIN:
                    continue
                if second.ended <= event.mono or second.live_until < event.mono:
                    continue
                if not history.severed(key, first.authority, first.granted, event.mono):
                    what = f"{event.data['what']} of {_who(first)}"
                    yield Breach(STALE, key, f"{what} was taken, while {_who(second)} held it")


def own_claims(history: History) -> Iterator[Breach]:
    """Nobody is turned away by his own record."""
    for event in history.events:
        if event.kind == "claim" and event.data.get("met") == event.owner:
            told = f"{event.worker} is answered {event.data['outcome']} by its own claim"
            yield Breach(OWN_CLAIM, event.key, told)


def lost_claims_are_released(history: History) -> Iterator[Breach]:
    """What was claimed without a reply is given back."""
    for event in unreleased(history.events):
        if event.pid not in history.dead:
            told = f"{event.worker} never released its claim {event.owner[:6]}"
            yield Breach(NO_CRASH, event.key, told)


def unreleased(events: Sequence[Event]) -> Iterator[Event]:
    """The claims without a reply that nobody has sent a release for."""
    released = {e.owner for e in events if e.kind == "ending" and e.data["what"] == "abandon"}
    for event in events:
        lost = event.kind == "claim" and event.data.get("error") == "StoreUnavailable"
        if lost and event.owner not in released:
            yield event


def retries_are_kept(history: History) -> Iterator[Breach]:
    """What waits for its next attempt is granted to no other message."""
    for key, holdings in history.holdings.items():
        for first, second in pairwise(holdings):
            parked = [event for event in first.said("park") if event.data["said"] == "True"]
            if not parked or second.task_id == first.task_id:
                continue
            if second.outcome == "taken_over":
                continue  # from the next attempt, whose process died before it told of its claim
            if not history.severed(key, first.authority, first.granted, second.granted):
                told = f"{_who(second)} is granted while the retry of {_who(first)} is due"
                yield Breach(WAITING, key, told)


def repeats_are_counted(history: History) -> Iterator[Breach]:
    """A second attempt follows a failure, a retry, or is counted as taken over."""
    for key, holdings in history.holdings.items():
        for first, second in pairwise(holdings):
            if second.outcome == "taken_over" or first.sent("release", "park"):
                continue
            if _unseen(history, key, first.granted, second.granted):
                continue
            if first.said("complete"):
                continue  # that is for `finished_once`
            if not history.severed(key, first.authority, first.granted, second.granted):
                told = f"{_who(second)} is {second.outcome} after {_who(first)}, not taken_over"
                yield Breach(REPEATED, key, told)


def leases_have_a_cause_to_end(history: History) -> Iterator[Breach]:
    """A lease runs out when something went wrong with its holder or its store, else never."""
    for key, holdings in history.holdings.items():
        for first, second in pairwise(holdings):
            if second.outcome != "taken_over" or first.ended < second.granted:
                continue
            if _unseen(history, key, first.granted, second.granted):
                continue
            if not _excused(history, first, second):
                told = f"the lease of {_who(first)} ran out, and nothing was wrong with it"
                yield Breach(REPEATED, key, told)


def _excused(history: History, first: Holding, second: Holding) -> bool:
    began = first.live_until - first.lease - MARGIN
    if first.pid in history.dead:
        return True
    faults = [f for f in history.faults if f.began <= second.granted]
    if any(fault.ended + FAULT_TAIL_SECONDS >= began for fault in faults):
        return True
    stalls = [event for event in history.events if event.kind == "stall"]
    return any(e.mono >= began and e.data["began"] <= second.granted for e in stalls)


def _unseen(history: History, key: str, began: float, ended: float) -> bool:
    """Whether the key may have been held meanwhile by one who never learnt of it."""

    def unseen(event: Event) -> bool:
        if event.kind == "ending" and event.data["what"] == "abandon":
            return began <= event.mono <= ended
        lost = event.kind == "claim" and event.data["outcome"] == "unavailable"
        return lost and event.mono >= began and event.data["began"] <= ended

    return any(unseen(event) for event in history.by_key[key])


def _who(holding: Holding) -> str:
    """One holder, as a person can find it in the history."""
    return f"{holding.owner[:6]} ({holding.worker}, pid {holding.pid}, {holding.outcome})"
