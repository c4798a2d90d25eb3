"""The Redis scripts: each touches one record, and is the whole of one step.

Commands are those of Redis 6.2. Lua numbers are doubles, exact for microseconds until the year
2255; `%.0f` keeps them from being written as 1.7e+15.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with its SHA-1, by which EVALSHA names it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


_NOW: Final = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] "

# KEYS: record. ARGV: owner, lease in microseconds, tail, retention in milliseconds.
# Returns the fence when the key was absent, else {now, record}.
CLAIM: Final = Script(
    "local raw = redis.call('GET', KEYS[1]) "
    + _NOW
    + """
if raw then return {now, raw} end
local is = string.format('%.0f', now)
local head = 'iw1 ' .. ARGV[1] .. ' ' .. is .. ' running ' .. string.format('%.0f ', now + ARGV[2])
redis.call('SET', KEYS[1], head .. is .. ARGV[3], 'PX', ARGV[4])
return now
"""
)

# KEYS: record. Returns {now, record or false}.
FIND: Final = Script(
    _NOW + "return {now, redis.call('GET', KEYS[1])}",
)

# KEYS: record. ARGV: record expected, new record, milliseconds to keep it (0: for ever).
SWAP: Final = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
)

# KEYS: record. ARGV: prefix (owner and fence), state, due from now in microseconds, tail,
# milliseconds to keep it. Written when absent too; what is finished or poisoned is not parked.
# Returns 1, or the record that stands there.
WRITE: Final = Script(
    """
local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] + 6)
local ours = string.sub(head, 1, #ARGV[1]) == ARGV[1]
if ours and ARGV[2] == 'waiting' then
  local state = string.sub(head, #ARGV[1] + 1)
  ours = state == 'running' or state == 'waiting'
end
if not ours and head ~= '' then return redis.call('GET', KEYS[1]) end
"""
    + _NOW
    + """
local due = string.format(' %.0f', now + ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2] .. due .. ARGV[4], 'PX', ARGV[5])
return 1
"""
)

# KEYS: record, and for a lock the list its waiters block on. ARGV: owner, fence ('' for any).
RELEASE: Final = Script(
    """
local head = redis.call('GETRANGE', KEYS[1], 0, 199)
if head == '' then return 1 end
local owner, fence, state = string.match(head, '^iw1 (%S+) (%S+) (%a+) ')
if owner ~= ARGV[1] or (ARGV[2] ~= '' and fence ~= ARGV[2]) then return 0 end
if state ~= 'running' and state ~= 'waiting' then return 0 end
redis.call('DEL', KEYS[1])
if KEYS[2] then
  redis.call('DEL', KEYS[2])
  redis.call('RPUSH', KEYS[2], '1')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return 1
"""
)

# KEYS: record. ARGV: prefix (owner, fence, 'running '), lease in microseconds, retention in ms.
RENEW: Final = Script(
    """
local raw = redis.call('GET', KEYS[1])
if not raw or string.sub(raw, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
"""
    + _NOW
    + """
local rest = string.match(raw, '^%d+( .*)$', #ARGV[1] + 1)
local due = string.format('%.0f', now + ARGV[2])
redis.call('SET', KEYS[1], ARGV[1] .. due .. rest, 'PX', ARGV[3])
return 1
"""
)
