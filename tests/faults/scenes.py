"""The scenes that rounds are made of: a load, and faults that are aimed at it.

Each scene exposes one or more rules of the protocol (see RULES of faults.rules): `TELLING` names
for each rule the scene that tells soonest that it is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from .plan import AUTHORITIES, LEASE_SECONDS, POOLS, TOPOLOGIES, WORKERS, Draft, Round, When

Scene = Callable[[Draft], None]
FROZEN_SECONDS: Final = 2.2 * LEASE_SECONDS
CUTS: Final = (
    "refuse", "blackhole", "hold_requests", "hold_replies", "drop_requests", "drop_replies",
    "reset", "delay",
)  # fmt: skip


def traffic(draft: Draft, until: float = 6.0) -> None:
    """A little of everything, with duplicates, spread over the round."""
    dice = draft.dice
    for number in range(2):
        for authority in AUTHORITIES:
            for kind in ("plain", "fenced"):
                key = draft.key(f"{authority[0]}-{kind}-{number}")
                spec = {"seconds": round(dice.uniform(0.05, 1.2), 3)}
                task = f"{authority}.{kind}"
                draft.burst(task, key, dice.uniform(0, until - 2.5), spec, spread=2.5)
        key = draft.key(f"commit-{number}")
        spec = {"seconds": round(dice.uniform(0.05, 0.8), 3)}
        draft.burst("commit", key, dice.uniform(0, until - 2), spec, spread=2.0)
    authority = dice.choice(AUTHORITIES)
    retries = {"seconds": 0.2, "retries": dice.randint(1, 2), "countdown": 0.5}
    draft.burst(f"{authority}.retrying", draft.key("retrying"), dice.uniform(0, 2), retries, 1.5)
    draft.burst(
        f"{authority}.failing", draft.key("failing"), dice.uniform(0, 3), {"seconds": 0.2}, 2
    )


def frozen(draft: Draft) -> None:
    """Holders stand still for longer than a lease; their successors begin, they come back late.

    Half of the children at a time, so that there are others to take over.
    """
    key = draft.key("commit-frozen")
    draft.burst("commit", key, 0.2, {"seconds": 0.6}, 1.0)
    draft.harm("freeze_holder", When(0, "begin", key, 0.2), FROZEN_SECONDS, key=key)
    for wave, authority in enumerate(draft.dice.sample(AUTHORITIES, 2)):
        for kind in ("plain", "fenced", "late", "unlucky"):
            key = draft.key(f"{authority[0]}-frozen-{kind}")
            # The successor still works when the holder comes back, but has written to its target.
            spec = {"seconds": {"plain": 1.6, "fenced": 0.8}.get(kind, 2.4)}
            at = 4.5 * wave + draft.dice.uniform(0, 0.3)
            draft.burst(f"{authority}.{kind}", key, at, spec, 1.0)
            draft.harm("freeze_holder", When(at, "begin", key, 0.3), FROZEN_SECONDS, key=key)


def killed(draft: Draft) -> None:
    """Children and workers are killed in the midst of effects."""
    traffic(draft)
    for authority in AUTHORITIES:
        key = draft.key(f"{authority[0]}-killed")
        draft.burst(f"{authority}.plain", key, 0.2, {"seconds": 1.0}, 1.0)
        draft.harm("kill_holder", When(0, "begin", key, 0.3), key=key)
    key = draft.key("commit-killed")
    draft.burst("commit", key, 0.2, {"seconds": 1.0}, 1.0)
    draft.harm("kill_holder", When(0, "begin", key, 0.4), key=key)
    if draft.dice.random() < 0.6:
        draft.harm("kill_worker", draft.dice.uniform(2, 4), 0.5, worker=_worker(draft))


def quiet(draft: Draft) -> None:
    """Nothing is broken: long work, many duplicates at once, retries, failures, other arguments."""
    for authority in AUTHORITIES:
        a = authority[0]
        long, short = draft.key(f"{a}-long"), draft.key(f"{a}-short")
        spec = {"seconds": 2.5 * LEASE_SECONDS, "unchecked": True}
        draft.burst(f"{authority}.plain", long, 0.1, spec, 1.0)
        for at in (0.0, 0.0, 0.0, 1.5, 2.5):
            draft.publish(f"{authority}.plain", short, at, {"seconds": 0.8})
        other = When(0.5, "stored", short)
        draft.publish(f"{authority}.plain", short, other, {"seconds": 0.8, "other": True})
        again = When(0.5, "stored", short, 2.0)
        draft.publish(f"{authority}.plain", short, again, {"seconds": 0.8})
        key = draft.key(f"{a}-retrying")
        spec = {"seconds": 0.2, "retries": 1, "countdown": 1.0}
        draft.publish(f"{authority}.retrying", key, 0.3, spec)
        draft.publish(f"{authority}.retrying", key, When(0.4, "parked", key), spec)
        key = draft.key(f"{a}-failing")
        draft.publish(f"{authority}.failing", key, 0.2, {"seconds": 0.1})
        draft.publish(f"{authority}.failing", key, When(0.3, "over", key, 0.2), {"seconds": 0.1})


def late_cache(draft: Draft) -> None:
    """What was done is forgotten, while the cache's write of it is still on its way."""
    keys = [draft.key(f"late-{number}") for number in range(3)]
    for key in keys:
        draft.publish("postgres.plain", key, 0.0, {"seconds": 0.8})
    for worker in range(WORKERS):
        held = When(0, "begin", keys[-1], 0.3)
        draft.harm("cut", held, 2.5, worker=worker, store="redis", mode="hold_requests")
    for key in keys:
        draft.harm("forget", When(0, "stored", key, 0.6), key=key)
        for then in (3.0, 3.5):
            draft.publish("postgres.plain", key, When(0, "forgotten", key, then), {"seconds": 0.8})


def cut_end(draft: Draft) -> None:
    """PostgreSQL is out of reach when work ends, and then the worker dies."""
    keys = [draft.key(f"cut-{number}") for number in range(3)]
    for key in keys:
        draft.burst("postgres.plain", key, 0.0, {"seconds": 1.0}, 0.2)
    for worker in range(WORKERS):
        gone = When(0, "begin", keys[-1], 0.3)
        draft.harm("cut", gone, 3.0, worker=worker, store="postgres", mode="refuse")
        draft.harm("kill_worker", When(0, "begin", keys[-1], 2.0), 0.2, worker=worker)


def lost_replies(draft: Draft) -> None:
    """Claims arrive and are carried out, but their replies never come back."""
    for wave in range(3):
        at = 0.3 + 1.6 * wave
        for authority in AUTHORITIES:
            for number in range(3):
                key = draft.key(f"{authority[0]}-reply-{wave}-{number}")
                draft.burst(f"{authority}.plain", key, at + 0.2, {"seconds": 0.1}, 1.5)
        for worker in range(WORKERS):
            for store in ("postgres", "redis"):
                # Reset at its end: the caller asks again at once, the second time in vain.
                mode = "refuse" if wave == 1 else "lose_replies"
                draft.harm("cut", at, 0.7, worker=worker, store=store, mode=mode)


def died(draft: Draft) -> None:
    """Processes die between two steps: when the store has answered, and nobody has heard of it."""
    points = (
        ("plain", "claim"), ("plain", "complete"), ("unlucky", "release"), ("retrying", "park"),
    )  # fmt: skip
    for authority in AUTHORITIES:
        for kind, point in points:
            key = draft.key(f"{authority[0]}-died!{point}")
            spec: dict[str, Any] = {"seconds": 0.3, "fails": point == "release"}
            if point == "park":
                spec |= {"retries": 1, "countdown": 0.3}
            draft.burst(f"{authority}.{kind}", key, draft.dice.uniform(0, 1), spec, 2.0)


def no_redis(draft: Draft) -> None:
    """Redis is killed, frozen, emptied, or fails over with its last writes lost."""
    traffic(draft)
    kinds = ("kill_redis", "freeze_redis", "empty_redis", "fail_over_redis")
    for kind in draft.dice.sample(kinds, 2):
        draft.harm(kind, draft.dice.uniform(0.5, 4.5), draft.dice.uniform(0.5, 2.5))


def no_postgres(draft: Draft) -> None:
    """PostgreSQL is killed or frozen."""
    traffic(draft)
    kind = draft.dice.choice(("kill_postgres", "freeze_postgres"))
    draft.harm(kind, draft.dice.uniform(0.5, 3), draft.dice.uniform(0.5, 2.5))
    for authority in AUTHORITIES:
        key = draft.key(f"{authority[0]}-through")
        draft.burst(f"{authority}.plain", key, 0.2, {"seconds": 2.5}, 3.0)


def cuts(draft: Draft) -> None:
    """One worker is cut off from one store, in every way there is."""
    traffic(draft)
    for _ in range(4):
        seconds = draft.dice.uniform(0.4, 2.5)
        store = draft.dice.choice(("postgres", "redis"))
        mode = draft.dice.choice(CUTS)
        at = draft.dice.uniform(0.2, 5)
        draft.harm("cut", at, seconds, worker=_worker(draft), store=store, mode=mode)


def mixed(draft: Draft) -> None:
    """A little of each fault."""
    cuts(draft)
    keys = sorted({one.key for one in draft.messages if one.kind in ("plain", "fenced")})
    for key in draft.dice.sample(keys, 2):
        kind = draft.dice.choice(("freeze_holder", "kill_holder"))
        draft.harm(kind, When(0, "begin", key), FROZEN_SECONDS, key=key)
    for key in draft.dice.sample(keys, 2):
        draft.harm("forget", draft.dice.uniform(2, 6), key=key)
    draft.harm("freeze_worker", draft.dice.uniform(1, 3), FROZEN_SECONDS, worker=_worker(draft))
    if draft.dice.random() < 0.5:
        draft.harm("kill_postgres", draft.dice.uniform(1, 4), draft.dice.uniform(0.3, 1.5))


SCENES: Final[dict[str, Scene]] = {
    one.__name__: one
    for one in (
        frozen, killed, quiet, late_cache, cut_end, lost_replies, died, no_redis, no_postgres,
        cuts, mixed,
    )
}  # fmt: skip
TELLING: Final = {
    "owner_check": "frozen",
    "fence": "frozen",
    "check": "frozen",
    "late_holder": "frozen",
    "heartbeat": "quiet",
    "lease": "quiet",
    "atomic_claim": "quiet",
    "result_kept": "quiet",
    "attempt": "quiet",
    "clock_fence": "quiet",
    "turned_away_waits": "quiet",
    "fingerprint": "quiet",
    "failure_is_no_result": "quiet",
    "cache_tombstone": "late_cache",
    "cache_after_commit": "cut_end",
    "same_owner": "lost_replies",
    "abandon": "lost_replies",
    "one_transaction": "killed",
}
"""For each rule the scene that tells soonest that it is missing."""


def round_of(
    seed: int, number: int, scene: str = "", topologies: tuple[str, ...] = TOPOLOGIES
) -> Round:
    """The round of a seed with this number, as `scene` if it is given."""
    dice = random.Random(f"{seed}/{number}/{scene}")
    names = list(SCENES)
    random.Random(seed).shuffle(names)
    chosen = scene or names[number % len(names)]
    draft = Draft(dice, f"{seed}.{number}")
    SCENES[chosen](draft)
    needs_proxy = any(one.kind == "cut" and one.store == "redis" for one in draft.faults)
    return Round(
        seed=seed,
        number=number,
        scene=chosen,
        forced=bool(scene),
        topology="single" if needs_proxy else topologies[0] if scene else dice.choice(topologies),
        pool="prefork" if scene else dice.choice(POOLS),
        messages=tuple(sorted(draft.messages, key=lambda one: one.when.at)),
        faults=tuple(sorted(draft.faults, key=lambda one: one.when.at)),
        clock="" if scene or dice.random() < 0.7 else dice.choice(("+1h", "-1h")),
    )


def _worker(draft: Draft) -> int:
    return draft.dice.randrange(WORKERS)
