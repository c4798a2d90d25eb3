"""The directory of workers in Redis: who serves metrics, where, and who was seen when.

A hash has the facts of each node, a sorted set when it was seen last, by the clock of Redis; both
keys are in one slot. A node has one entry: a worker that is started again takes its own place.

Invariants: one script is the whole of a step; what is older than 15 minutes goes away by itself;
what is read back is anyone's, so it is checked as if a stranger had written it.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_scripts import Script

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 900
"""How long a worker that does not come any more stays listed."""
MOST_WORKERS: Final = 1000
SCHEMES: Final = ("http", "https")
LONGEST_NODE: Final = 200
_MOST_CONCURRENCY: Final = 1_000_000
_LONGEST_FACTS: Final = 2000
_TARGET: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)

_NOW: Final = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] "
# KEYS: facts, seen. ARGV: node, facts, seconds to keep them, instance. Whether nobody else had the
# place; who comes takes it in any case, since one that died can't give it back.
REGISTER: Final = Script(
    _NOW
    + """
local past = string.format('(%.0f', now - ARGV[3] * 1000000)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', past, 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[1], node)
  redis.call('ZREM', KEYS[2], node)
end
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return (not before or string.find(before, ARGV[4], 1, true)) and 1 or 0
"""
)
# KEYS: facts, seen. ARGV: node, instance. Another worker of the same name, which came since, stays.
REMOVE: Final = Script(
    """
local facts = redis.call('HGET', KEYS[1], ARGV[1])
if not facts or not string.find(facts, ARGV[2], 1, true) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
"""
)
# KEYS: facts, seen. ARGV: seconds to keep them, how many at most, longest facts. The latest first.
READ: Final = Script(
    _NOW
    + """
local since = string.format('%.0f', now - ARGV[1] * 1000000)
local found, seen = {}, redis.call(
  'ZREVRANGEBYSCORE', KEYS[2], '+inf', since, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #seen, 2 do
  local short = redis.call('HSTRLEN', KEYS[1], seen[i]) <= tonumber(ARGV[3])
  local facts = short and redis.call('HGET', KEYS[1], seen[i])
  local ago = string.format('%.0f', now - seen[i + 1])
  found[#found + 1] = {seen[i], facts, ago}
end
return found
"""
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker tells of itself. `target`: where it serves, as host:port; None: not for others.

    `concurrency`: how many tasks it runs at once. `instance`: random, of this process.
    """

    node: str
    target: str | None
    scheme: str
    concurrency: int
    instance: str

    def encoded(self) -> str:
        """As they stand in Redis."""
        told = {"target": self.target, "scheme": self.scheme}
        also = {"concurrency": self.concurrency, "instance": self.instance}
        return json.dumps(told | also, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Listed:
    """A worker of the directory, and how long ago it was seen."""

    node: str
    target: str | None
    scheme: str
    concurrency: int
    ago_seconds: float


class WorkerDirectory:
    """The directory of one namespace. May raise StoreUnavailable."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._keys = tuple(f"{namespace}:{{workers}}:{part}" for part in ("facts", "seen"))
        self._told_wrong = False

    def register(self, facts: Facts) -> bool:
        """Note that a worker lives; False if another instance had its place."""
        given = facts.node, facts.encoded(), KEPT_SECONDS, facts.instance
        return bool(self._link.run(REGISTER, self._keys, *given) == 1)

    def remove(self, facts: Facts) -> bool:
        """Note that a worker ends in order; False if its place is another's by now."""
        return bool(self._link.run(REMOVE, self._keys, facts.node, facts.instance) == 1)

    def workers(self) -> list[Listed]:
        """Those seen in the last 15 minutes, the latest first; at most 1000."""
        rows = self._link.run(READ, self._keys, KEPT_SECONDS, MOST_WORKERS + 1, _LONGEST_FACTS)
        found = [one for row in rows[:MOST_WORKERS] if (one := listed_of(row)) is not None]
        self._tell(len(rows) - len(found))
        return found

    @property
    def is_left_out(self) -> bool:
        """Whether Redis is away, which its breaker has logged."""
        return self._link.breaker.is_open

    def drop(self) -> None:
        """Keep no connection."""
        self._link.drop()

    def close(self) -> None:
        """Close all connections, for good."""
        self._link.close()

    def _tell(self, wrong: int) -> None:
        """Once, until it is right again."""
        if wrong and not self._told_wrong:
            log.warning(
                "%s entries of the workers' directory (%s) are left out: they are not such as a "
                "worker writes, or over %s", wrong, self._keys[0], MOST_WORKERS,
            )  # fmt: skip
        self._told_wrong = wrong > 0


def listed_of(row: Sequence[Any]) -> Listed | None:
    """The entry of a row of `READ`; None for one that no worker of ours wrote."""
    try:
        node, raw, ago = row[0].decode(), row[1], int(row[2])
        if raw is None or not _is_node(node) or ago < -KEPT_SECONDS * 1_000_000:
            return None
        facts = json.loads(raw)
        target, scheme, concurrency = facts["target"], facts["scheme"], facts["concurrency"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (target is None or is_target(target)) or scheme not in SCHEMES:
        return None
    if type(concurrency) is not int or not 0 <= concurrency <= _MOST_CONCURRENCY:
        return None
    return Listed(node, target, scheme, concurrency, max(0.0, ago / 1_000_000))


def _is_node(node: str) -> bool:
    return 0 < len(node) <= LONGEST_NODE and node.isprintable()


def is_target(text: object) -> bool:
    """Whether it is a host and a port that can be scraped: name:port, 10.0.0.1:port, [::1]:port.

    Link-local, multicast and unspecified addresses are none: no worker serves there, and a cloud
    gives its secrets away at 169.254.169.254. What a name leads to is not known here.
    """
    match = _TARGET.fullmatch(text) if isinstance(text, str) and len(text) < 262 else None
    if match is None or not 0 < int(match["port"]) < 65536:
        return False
    if match["six"] is not None:
        return _is_reachable(ipaddress.IPv6Address, match["six"])
    host = match["host"].rstrip(".")
    try:  # resolvers take some names for addresses: 2852039166 is 169.254.169.254
        return _is_reachable(ipaddress.IPv4Address, socket.inet_aton(host))
    except OSError:
        return all(0 < len(part) < 64 for part in host.split("."))


def _is_reachable(
    version: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], given: str | bytes
) -> bool:
    try:
        address = version(given)
    except ValueError:
        return False
    of = getattr(address, "ipv4_mapped", None) or address
    return not (of.is_link_local or of.is_multicast or of.is_unspecified)


def seen_within(workers: Iterable[Listed], seconds: float) -> int:
    """How many were seen in so many seconds."""
    return sum(one.ago_seconds < seconds for one in workers)
