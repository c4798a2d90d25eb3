"""Claims and locks with authority `redis`, against a bare `SET key value NX PX` by redis-py."""

from __future__ import annotations

from typing import Final

from idemwatch.idempotency.service import IdempotencyService
from idemwatch.idempotency.settings import Settings

from .lab import Lab
from .measure import Measured, Operation, against, names
from .peers import Peers
from .work import Work

CALLS: Final = 100
TURNS: Final = 150
VALUE: Final = b"0" * 32


def claim_new(lab: Lab) -> Measured:
    """A claim that nobody has, counted."""
    work = Work(lab.engine(redis_too=True), "redis")
    return _against_set(lab, work.claim_new, _peers(lab).claim_new())


def claim_duplicate(lab: Lab) -> Measured:
    """A claim of finished work, with its record read."""
    work = Work(lab.engine(redis_too=True), "redis")
    key = work.claim_complete()
    return _against_set(lab, lambda: work.duplicate(key), _peers(lab).duplicate())


def claim_complete(lab: Lab) -> Measured:
    """A claim, its lease, and its result."""
    work = Work(lab.engine(redis_too=True), "redis")
    return _against_set(lab, work.claim_complete, _peers(lab).claim_complete())


def lock(lab: Lab) -> Measured:
    """The service's lock, acquired and released."""
    service = IdempotencyService(Settings(redis_url=lab.redis_url, authority="redis"))
    lab.stack.callback(service.engine.close)
    keys = names("lock")

    def ours() -> None:
        with service.lock(next(keys)):
            pass

    return _against_set(lab, ours, _peers(lab).lock())


def _peers(lab: Lab) -> Peers:
    return Peers(lab.redis_url, lab.client)


def _against_set(lab: Lab, ours: Operation, peers: dict[str, Operation]) -> Measured:
    client, keys = lab.client, names("bench:bare")

    def bare() -> None:
        client.set(next(keys), VALUE, nx=True, px=30_000)

    return against(ours, bare, peers, calls=CALLS, turns=lab.turns(TURNS))
