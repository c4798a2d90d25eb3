"""The store of authority `redis`: one script to claim, one to complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .errors import StoreUnavailable, UnreadableRecord
from .record import RETENTION_US, Claim, Completion, Record, State, is_gone, running
from .redis_link import RedisLink
from .redis_scripts import CLAIM, FIND, RELEASE, RENEW, SWAP, WRITE
from .store import ATTEMPTS, Found, Held, Result, SwapStore, done, unclaimed, waiting
from .wire import claim_tail, decode, done_tail, encode, prefix, tail

LOCK: Final = "lock"
_UNSET: Final = running(
    Claim(key="", owner="-", authority="redis"), fence=0, now_us=0, created_us=0
)


def keep_ms(due_from_now_us: int, state: State) -> int:
    """How long Redis keeps a record: as long as it counts, and RUNNING and WAITING far longer."""
    if state is State.POISONED:
        return 0
    extra = RETENTION_US if state in (State.RUNNING, State.WAITING) else 0
    return max(1, (due_from_now_us + extra) // 1000)


class RedisStore(SwapStore):
    """Records as strings under `<namespace>:{<key>}`."""

    name = "redis"

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._namespace = namespace
        self._head = f"{namespace}:{{"
        self._poisoned = f"{namespace}:poisoned"

    def redis_key(self, key: str) -> str:
        """Where the record of `key` stands."""
        return f"{self._head}{key}}}"

    def _insert(self, claim: Claim) -> int | Found | None:
        kept = keep_ms(claim.lease_us, State.RUNNING)
        lease = claim.lease_us
        reply = self._link.run(
            CLAIM, (self._head + claim.key + "}",), claim.owner, lease, claim_tail(claim), kept
        )
        if isinstance(reply, int):
            return reply
        now, raw = reply
        return Found(decode(raw, self.name, claim.key), now, raw)

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        if (
            new.state is State.POISONED
        ):  # listed first: a listed key is looked up before it is shown
            self._link.call("SADD", self._poisoned, key)
        kept = keep_ms(new.due_us - found.now_us, new.state)
        reply = self._link.run(SWAP, (self.redis_key(key),), found.version, encode(new), kept)
        return bool(reply == 1)

    def complete(self, held: Held, result: Result) -> Completion:
        last = done_tail(held.claim, held.created_us, result.content_type, result.data)
        met = self._write(held, State.DONE, last, result.ttl_us)
        if met is None:
            return Completion.STORED
        state = decode(met, self.name, held.key).state
        return Completion.FORGOTTEN if state is State.FORGOTTEN else Completion.STALE

    def park(self, held: Held, *, fingerprint: str, open_after_us: int) -> bool:
        record = waiting(held, fingerprint=fingerprint, due_us=0)
        return self._write(held, record.state, tail(record), open_after_us) is None

    def _write(self, held: Held, state: State, last: bytes, due_us: int) -> bytes | None:
        """Write a record that ends in `last`; None, or the record of another that stands there."""
        reply = self._link.run(
            WRITE,
            (self.redis_key(held.key),),
            prefix(held.claim.owner, held.fence),
            state,
            due_us,
            last,
            keep_ms(due_us, state),
        )
        return None if reply == 1 else bytes(reply or b"")

    def release(self, held: Held) -> bool:
        return self._release(held.claim.endpoint, held.key, held.claim.owner, str(held.fence))

    def abandon(self, key: str, owner: str) -> bool:
        return self._release(LOCK, key, owner, "")

    def _release(self, endpoint: str, key: str, owner: str, fence: str) -> bool:
        name = self.redis_key(key)
        # The list of waiters is in the record's slot, but for a name of which a cluster hashes all.
        wakes = endpoint == LOCK and not key.startswith("}")
        keys = (name, f"{name}:wake") if wakes else (name,)
        return bool(self._link.run(RELEASE, keys, owner, fence) == 1)

    def renew(self, held: Sequence[Held]) -> set[str]:
        calls = [(self.redis_key(one.key), _renewal(one)) for one in held]
        replies = self._link.run_many(RENEW, calls)
        for reply in replies:
            if isinstance(reply, StoreUnavailable):  # of one node of a cluster
                raise reply
            if isinstance(reply, Exception) and "WRONGTYPE" not in str(reply):
                raise StoreUnavailable(self.name, "a renewal was refused") from reply
        return {one.claim.owner for one, reply in zip(held, replies, strict=True) if reply == 1}

    def find(self, key: str) -> Found | None:
        return self._find(key)[1]

    def _find(self, key: str) -> tuple[int, Found | None]:
        now: int
        now, raw = self._link.run(FIND, (self.redis_key(key),))
        if raw is None:
            return now, None
        return now, Found(decode(raw, self.name, key), now, raw)

    def forget(self, key: str) -> Record | None:
        found = self._remove_unreadable(key) or super().forget(key)
        self._link.call("SREM", self._poisoned, key)
        return found

    def _remove_unreadable(self, key: str) -> Record | None:
        """Garbage has no owner that could come late, so it is deleted."""
        try:
            self.find(key)
        except UnreadableRecord:
            self._link.call("DEL", self.redis_key(key))
            return _UNSET
        return None

    def put_done(self, held: Held, result: Result) -> bool:
        for _ in range(ATTEMPTS):
            now, found = self._find(held.key)
            record = done(unclaimed(held, found, now), result, now)
            if found is None:
                kept = keep_ms(result.ttl_us, record.state)
                name = self.redis_key(held.key)
                if self._link.call("SET", name, encode(record), "NX", "PX", kept):
                    return True
            elif not is_gone(found.record, now):
                return found.record.owner == held.claim.owner  # ours, whose reply was lost
            elif self._swap(held.key, found, record):
                return True
        raise StoreUnavailable(self.name, f"{held.key} changed {ATTEMPTS} times while it was read")

    def wait_released(self, key: str, timeout_seconds: float) -> None:
        wait = max(0.01, timeout_seconds)
        self._link.block(wait, "BLPOP", f"{self.redis_key(key)}:wake", f"{wait:.3f}")

    def ping(self) -> None:
        self._link.each("PING")

    def eviction_policy(self) -> str:
        """`maxmemory-policy`; anything but noeviction may drop live records."""
        policies = [_policy(bytes(reply).decode()) for reply in self._link.each("INFO", "memory")]
        return next((one for one in policies if one not in ("noeviction", "unknown")), policies[0])

    def poisoned(self) -> Iterable[str]:
        for name in sorted(self._link.call("SMEMBERS", self._poisoned)):
            key = name.decode()
            found = self.find(key)
            if found and found.record.state is State.POISONED:
                yield key

    def close(self) -> None:
        self._link.close()


def _policy(memory: str) -> str:
    for line in memory.splitlines():
        name, _, value = line.partition(":")
        if name == "maxmemory_policy":
            return value.strip()
    return "unknown"


def _renewal(held: Held) -> tuple[str, int, int]:
    head = prefix(held.claim.owner, held.fence) + "running "
    return head, held.claim.lease_us, keep_ms(held.claim.lease_us, State.RUNNING)
