"""Random steps of several processes on one store, compared with a model in plain Python.

A claim may be cut in two: between its reading and its writing another process does a step of its
own. Invariants: each answer is the model's, fences grow, what is found is what the model knows, and
what a cache says is finished is what the store has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from idemwatch.idempotency.cached_store import CachedStore
from idemwatch.idempotency.record import Answer, Claim, Record, State, Wait
from idemwatch.idempotency.store import Found, Held, SwapStore
from support.stores import ENDED_US, HOUR_US, result

from .lossy import LossyLinks
from .reference import MAX_CRASHES, Message, Reference

_examples = itertools.count()


def _nothing(key: str) -> object:
    return None


@dataclass
class System:
    """The stores of several processes over one server, and how to take things away there."""

    stores: Sequence[SwapStore]
    authority: str
    lose: Callable[[str], object]
    lose_cache: Callable[[str], object] = field(default=_nothing)
    links: Sequence[LossyLinks] = ()
    """Those of the stores, if replies may get lost."""


class Holder(NamedTuple):
    """One who was granted a key at some time."""

    key: str
    message: Message
    held: Held
    ended: bool
    """Whether its result runs out at once."""

    @property
    def data(self) -> bytes:
        return self.message.owner.encode()


NUMBERS = st.integers(0, 3)
WAITS = st.sampled_from(["", "first", "again", "surplus", "redelivered"])


class StoreMachine(RuleBasedStateMachine):
    """Three keys of which two are used often, and processes that take turns."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.model = Reference()
        self.holders: list[Holder] = []
        self.newest: dict[str, int] = {}
        self.owners = itertools.count()
        self.example = next(_examples)
        self.lost_reply: int | None = None

    @initialize()
    def nothing_yet(self) -> None:
        self.keys = [f"work:{self.example}:{number}" for number in range(2)]

    # -- claims ------------------------------------------------------------------------------

    @rule(key=NUMBERS, store=NUMBERS, task=NUMBERS, attempt=NUMBERS, ended=st.booleans(),
          other=st.sampled_from([False] * 7 + [True]))  # fmt: skip
    def claim(
        self, key: int, store: int, task: int, attempt: int, ended: bool, other: bool
    ) -> None:
        arguments = "ffff" if other else "aaaa"
        message = Message(self._owner(), f"id{task % 2}", attempt % 3, arguments, ended)
        self._claimed(self._key(key), message, self._ask(key, store, message))

    @rule(key=NUMBERS, store=NUMBERS, task=NUMBERS, wait=WAITS, hurried=st.booleans())
    def claim_or_wait(self, key: int, store: int, task: int, wait: str, hurried: bool) -> None:
        """A message that was delivered twice has one token; each copy that waited presents its."""
        tid = f"id{task % 2}"
        tokens = {"first": ("t1", ""), "again": ("t2", "t1"), "surplus": ("t3", "t0")}
        token, presented = tokens.get(wait, ("t1", ""))
        message = Message(self._owner(), tid, 0, "aaaa", False, token if wait else "", presented,
                          wait == "redelivered", hurried)  # fmt: skip
        self._claimed(self._key(key), message, self._ask(key, store, message))

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, store=NUMBERS)
    def claim_again_as_the_same_owner(self, which: int, store: int) -> None:
        """The reply was lost."""
        holder = self._holder(which)
        answer = self._store(store).claim(holder.held.claim)
        self._claimed(holder.key, holder.message, answer)

    @rule(key=NUMBERS, store=NUMBERS, rival=NUMBERS, ended=st.booleans(), step=st.sampled_from(
        ["claim", "complete", "renew", "release", "forget", "lose"]))  # fmt: skip
    def claim_while_another_is_at_work(
        self, key: int, store: int, rival: int, ended: bool, step: str
    ) -> None:
        """Between what was read and what is written, another does a step."""
        self.lost_reply = None  # with one, the claim would be there before that step
        message = Message(self._owner(), "id0", 0, "aaaa", ended)
        number, mine = key, self._store(store)
        swap = mine._swap

        def late_swap(key: str, found: Found, new: Record) -> bool:
            mine._swap = swap  # type: ignore[method-assign]
            self._step_of_a_rival(step, number, rival)
            return swap(key, found, new)

        mine._swap = late_swap  # type: ignore[method-assign]
        try:
            answer = mine.claim(self._new_claim(self._key(key), message))
        finally:
            mine._swap = swap  # type: ignore[method-assign]
        self._claimed(self._key(key), message, answer)

    def _step_of_a_rival(self, step: str, key: int, store: int) -> None:
        holders = [one for one in self.holders if one.key == self._key(key)]
        if step == "claim":
            self.claim(key, store, 1, 2, False, False)
        elif step == "forget":
            self.forget(key, store)
        elif step == "lose":
            self.lose(key)
        elif holders and step == "complete":
            self._complete(holders[-1], store)
        elif holders and step == "release":
            self._release(holders[-1], store)
        elif holders:
            self._renew(holders[-1:], store, ended=False)

    # -- holders -----------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(which=st.sets(NUMBERS, min_size=1), store=NUMBERS, ended=st.booleans())
    def renew(self, which: set[int], store: int, ended: bool) -> None:
        unique = {one.message.owner: one for one in map(self._holder, sorted(which))}
        self._renew(list(unique.values()), store, ended=ended)

    def _renew(self, holders: Sequence[Holder], store: int, *, ended: bool) -> None:
        lease = ENDED_US if ended else HOUR_US
        held = [h.held._replace(claim=h.held.claim._replace(lease_us=lease)) for h in holders]
        kept = self._store(store).renew(held)
        names = [(h.key, h.message.owner, h.held.fence) for h in holders]
        assert kept == {name[1] for name in names if self.model.renew(*name, ended=ended)}

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, store=NUMBERS)
    def complete(self, which: int, store: int) -> None:
        self._complete(self._holder(which), store)

    def _complete(self, holder: Holder, store: int) -> None:
        key, by, held, ended = holder
        ttl = ENDED_US if ended else HOUR_US
        answer = self._store(store).complete(held, result(holder.data, ttl))
        gone = self._expired(key)
        if not gone:
            assert answer == self.model.complete(key, by.owner, held.fence)
        if answer == "stored":
            self.model.finish(key, by, held.fence, holder.data, ended=ended)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, store=NUMBERS, ended=st.booleans())
    def park(self, which: int, store: int, ended: bool) -> None:
        key, by, held, _ = self._holder(which)
        after = ENDED_US if ended else HOUR_US
        parked = self._store(store).park(held, fingerprint=by.arguments, open_after_us=after)
        if self._expired(key) and parked:
            self.model.lose(key)  # it was purged
        assert parked == self.model.park(key, by, held.fence, ended=ended)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, store=NUMBERS)
    def release(self, which: int, store: int) -> None:
        self._release(self._holder(which), store)

    def _release(self, holder: Holder, store: int) -> None:
        key, by, held, _ = holder
        released = self._store(store).release(held)
        assert self._expired(key) or released == self.model.release(key, by.owner, held.fence)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, store=NUMBERS)
    def abandon(self, which: int, store: int) -> None:
        key, by, _, _ = self._holder(which)
        abandoned = self._store(store).abandon(key, by.owner)
        assert self._expired(key) or abandoned == self.model.release(key, by.owner)

    # -- others ------------------------------------------------------------------------------

    @rule(key=NUMBERS, store=NUMBERS, ended=st.booleans())
    def put_a_result_without_a_claim(self, key: int, store: int, ended: bool) -> None:
        by, name = Message(self._owner(), arguments="aaaa", ended=ended), self._key(key)
        held = Held(claim=self._new_claim(name, by), fence=0, created_us=0)
        ttl, data = ENDED_US if ended else HOUR_US, by.owner.encode()
        put = self._store(store).put_done(held, result(data, ttl))
        assert put == self.model.put_done(name)
        if put:
            found = self._store(store).find(name)
            fence = found.record.fence if found else 0
            self.model.finish(name, by, fence, data, ended=ended)

    @rule(key=NUMBERS, store=NUMBERS)
    def forget(self, key: int, store: int) -> None:
        name = self._key(key)
        if not self._expired(name):
            assert (self._store(store).forget(name) is not None) == self.model.forget(name)

    @rule(key=NUMBERS)
    def lose(self, key: int) -> None:
        """Flushed, evicted, failed over."""
        self.system.lose(self._key(key))
        self.model.lose(self._key(key))

    @precondition(lambda self: self.system.links)
    @rule(after=NUMBERS)
    def lose_a_reply(self, after: int) -> None:
        """The next step is sent once more, in part."""
        self.lost_reply = after

    @rule(key=NUMBERS)
    def lose_cache(self, key: int) -> None:
        self.system.lose_cache(self._key(key))

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def what_is_found_is_what_the_model_knows(self) -> None:
        for number, key in enumerate(self.keys):
            stores = self.system.stores
            entry, found = self.model.at(key), stores[number % len(stores)].find(key)
            if entry is not None and entry.expired:
                continue  # there or purged
            shown = found and (str(found.record.state), found.record.owner, found.record.fence)
            assert shown == (entry and (entry.state, entry.owner, entry.fence))
            if found and entry and entry.state != "forgotten":
                assert found.record.crashes == entry.crashes
                assert found.record.result == entry.result

    @invariant()
    def what_is_finished_in_the_cache_is_finished_in_the_store(self) -> None:
        for key in self.keys:
            for store in self.system.stores[:1]:
                cached = store.cache.get(key) if isinstance(store, CachedStore) else None
                if cached is None or cached.state is State.FORGOTTEN:
                    continue
                entry = self.model.at(key)
                assert cached.state is State.DONE
                assert entry is not None and not entry.gone, "the cache answers what is gone"
                assert (cached.owner, cached.result) == (entry.owner, entry.result)

    # -- in short ----------------------------------------------------------------------------

    def _claimed(self, key: str, message: Message, answer: Answer) -> None:
        before = self.model.at(key)
        outcome = self.model.claim(key, message)
        assert answer.outcome == outcome
        if answer.granted:
            self._held(
                key, message, answer, again=before is not None and before is self.model.at(key)
            )
        elif outcome == "duplicate":
            assert before is not None and answer.record is not None
            assert answer.record.result == before.result
        elif outcome == "running":
            assert (answer.delay_us is not None) == self.model.waits(key, message)

    def _held(self, key: str, message: Message, answer: Answer, *, again: bool) -> None:
        entry = self.model.entries[key]
        if again:
            assert answer.fence == entry.fence
            return
        assert answer.fence > self.newest.get(key, 0), "a fence grows with every holder"
        entry.fence = self.newest[key] = answer.fence
        created = answer.fence if answer.record is None else answer.record.created_us
        held = Held(self._new_claim(key, message), answer.fence, created)
        self.holders.append(Holder(key, message, held, ended=len(self.holders) % 4 == 3))

    def _ask(self, key: int, store: int, message: Message) -> Answer:
        return self._store(store).claim(self._new_claim(self._key(key), message))

    def _new_claim(self, key: str, by: Message) -> Claim:
        longest = ENDED_US if by.hurried else HOUR_US
        wait = Wait(by.token, by.presented, by.redelivered, longest) if by.token else None
        return Claim(key, by.owner, self.system.authority, by.arguments, by.task_id, by.attempt,
                     lease_us=ENDED_US if by.ended else HOUR_US, max_crashes=MAX_CRASHES,
                     wait=wait, grace_us=0)  # fmt: skip

    def _expired(self, key: str) -> bool:
        entry = self.model.at(key)
        return entry is not None and entry.expired

    def _owner(self) -> str:
        return f"owner{self.example}x{next(self.owners)}"

    def _key(self, number: int) -> str:
        return self.keys[number == 3]  # the first one mostly

    def _store(self, number: int) -> SwapStore:
        number %= len(self.system.stores)
        if self.lost_reply is not None:
            self.system.links[number].lose(self.lost_reply)
            self.lost_reply = None
        return self.system.stores[number]

    def _holder(self, number: int) -> Holder:
        """The newest ones mostly."""
        return self.holders[-1 - number % len(self.holders)]
