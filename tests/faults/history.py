"""Everything that is known of one round, for the checker: plain values.

Invariant: a Holding is only what is certain. Its lease lives at least until `live_until`, and it is
over at the latest when its first ending was sent; what is not known makes it shorter, never longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from .ledger import Event
from .plan import Message, Round

Counted = tuple[str, str, str]
"""A counter, a task, and the value of its other label."""
COUNTERS: Final = {"claims": "outcome", "completions": "result"}
"""The counters that are compared with the ledger: idemwatch_<name>_total, and their label."""


class Span(NamedTuple):
    """Something that lasted: a fault, a forget, a loss of data. `about` says what or whom."""

    began: float
    ended: float
    kind: str
    about: str = ""

    def meets(self, began: float, ended: float) -> bool:
        """Whether it overlaps."""
        return self.began <= ended and began <= self.ended


class Answered(NamedTuple):
    """What the result backend says of a task id at the end."""

    status: str
    result: Any


class Left(NamedTuple):
    """A record as a store had it at the end. `due_in`: seconds until its lease ends."""

    key: str
    state: str
    owner: str
    due_in: float


@dataclass
class Holding:
    """One owner's lease on a key."""

    key: str
    authority: str
    owner: str
    fence: int
    task_id: str
    attempt: int
    worker: str
    pid: int
    outcome: str
    granted: float
    lease: float
    live_until: float
    ended: float = float("inf")
    """When its first ending was sent: from then on it may be over."""
    events: list[Event] = field(default_factory=list)

    def said(self, what: str) -> list[Event]:
        """The answers of the store to one kind of ending."""
        return [e for e in self.events if e.kind == "ended" and e.data["what"] == what]

    def sent(self, *what: str) -> list[Event]:
        """The endings of these kinds that were sent."""
        return [e for e in self.events if e.kind == "ending" and e.data["what"] in what]


@dataclass
class History:
    """A round and what came of it. Times are CLOCK_MONOTONIC."""

    plan: Round
    events: list[Event]
    faults: list[Span] = field(default_factory=list)
    """`about` names the worker, the pid or the store."""
    forgets: list[Span] = field(default_factory=list)
    """`about` is the key; kind "failed" for one that was not carried out."""
    losses: list[Span] = field(default_factory=list)
    """While, and shortly after, Redis lost data."""
    answers: dict[str, Answered] = field(default_factory=dict)
    broker_left: list[str] = field(default_factory=list)
    records: list[Left] = field(default_factory=list)
    cached: list[Left] = field(default_factory=list)
    effects: list[tuple[str, str]] = field(default_factory=list)
    """Key and owner of what was committed in transactions."""
    target: list[tuple[str, str, int]] = field(default_factory=list)
    """Key, owner and fence of what the target took, in order."""
    once: list[tuple[str, str]] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    """The processes that did not live to the end of the round."""
    counted: dict[str, dict[Counted, float]] = field(default_factory=dict)
    """The counters of each worker that lived through the round."""
    lost: list[str] = field(default_factory=list)
    """Task ids that were published once more, since a worker died with the message."""
    killed: int = 0
    """How many whole workers died."""

    @cached_property
    def by_key(self) -> dict[str, list[Event]]:
        """Events by key, in order."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            found[event.key].append(event)
        return found

    @cached_property
    def messages(self) -> dict[str, list[Message]]:
        """What was published, by key."""
        found: dict[str, list[Message]] = defaultdict(list)
        for message in self.plan.messages:
            found[message.key].append(message)
        return found

    @cached_property
    def holdings(self) -> dict[str, list[Holding]]:
        """The leases of each key, in the order in which its store granted them."""
        return {key: _holdings(events) for key, events in self.by_key.items() if key}

    def owner(self, key: str, owner: str) -> Holding | None:
        """The holding of an owner."""
        return next((h for h in self.holdings.get(key, ()) if h.owner == owner), None)

    def severed(self, key: str, authority: str, began: float, ended: float) -> bool:
        """Whether the key was forgotten meanwhile, or Redis lost what it decides by."""
        forgotten = any(f.about == key and f.meets(began, ended) for f in self.forgets)
        lost = authority == "redis" and any(one.meets(began, ended) for one in self.losses)
        return forgotten or lost


def _holdings(events: Iterable[Event]) -> list[Holding]:
    found: dict[str, Holding] = {}
    for event in events:
        if event.kind == "claim" and "granted" in event.data:
            found.setdefault(event.owner, _holding(event))
        holding = found.get(event.owner)
        if holding is None:
            continue
        holding.events.append(event)
        if event.kind == "renewed":
            until = event.data["began"] + event.data["lease"]
            holding.live_until = max(holding.live_until, until)
        elif event.kind == "ending":
            holding.ended = min(holding.ended, event.data["began"])
    return sorted(found.values(), key=lambda one: one.granted)


def _holding(event: Event) -> Holding:
    data = event.data
    return Holding(
        key=event.key,
        authority=data["authority"],
        owner=event.owner,
        fence=data["fence"],
        task_id=event.task_id,
        attempt=data["attempt"],
        worker=event.worker,
        pid=event.pid,
        outcome=data["outcome"],
        granted=data["granted"],
        lease=data["lease"],
        live_until=data["granted"] + data["lease"],
    )
