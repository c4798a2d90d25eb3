"""What a store must answer, in plain Python: nothing of this is shared with idempotency/.

Time is one bit: a lease, a retry or a result has run out, or has an hour to go. What a store may
have purged or may still see (a result that has run out) is `gone`; where both are right, the answer
is taken over and not foretold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_CRASHES = 2


@dataclass
class Note:
    """The copy of a message that waits."""

    token: str
    due: bool = False


@dataclass
class Entry:
    """What is known of a key."""

    state: str
    owner: str
    fence: int
    ended: bool = False
    task_id: str = ""
    attempt: int = 0
    crashes: int = 0
    arguments: str = ""
    result: bytes | None = None
    waiting: dict[str, Note] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """Counts as absent: forgotten, or a result that has run out."""
        return self.state == "forgotten" or self.expired

    @property
    def expired(self) -> bool:
        return self.state == "done" and self.ended

    @property
    def open(self) -> bool:
        """Neither finished nor poisoned nor forgotten."""
        return self.state in ("running", "waiting")


@dataclass(frozen=True)
class Message:
    """Who asks for a key, with what; `token` is that of its next copy, "" for one that cannot wait.

    `ended`: the lease that it gets runs out at once. `hurried`: so does its wait.
    """

    owner: str
    task_id: str = ""
    attempt: int = 0
    arguments: str = ""
    ended: bool = False
    token: str = ""
    presented: str = ""
    redelivered: bool = False
    hurried: bool = False


class Reference:
    """All keys. Each method does what a store shall do, and returns what it shall answer."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def at(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def mine(self, key: str, owner: str, fence: int) -> Entry | None:
        """The entry, if it is still this holder's."""
        entry = self.at(key)
        return entry if entry and (entry.owner, entry.fence) == (owner, fence) else None

    def claim(self, key: str, by: Message) -> str:
        """The outcome; the fence of a new holder is the store's to choose."""
        entry = self.at(key)
        if entry is None or entry.gone:
            return self._hold(key, by, "granted")
        if entry.state == "running" and entry.owner == by.owner:
            entry.ended = by.ended
            return "taken_over" if entry.crashes else "granted"
        if entry.arguments != by.arguments and entry.owner != by.owner:
            return "mismatch"
        if entry.state == "done":
            return "duplicate"
        if entry.state == "poisoned":
            return "poisoned"
        if entry.state == "waiting":
            following = entry.task_id == by.task_id and by.attempt >= entry.attempt
            return self._hold(key, by, "granted") if following or entry.ended else "running"
        if not entry.ended:
            return "running"
        if entry.crashes == MAX_CRASHES:
            entry.state, entry.waiting = "poisoned", {}
            return "poisoned"
        return self._hold(key, by, "taken_over", entry.crashes + 1)

    def _hold(self, key: str, by: Message, outcome: str, crashes: int = 0) -> str:
        self.entries[key] = Entry(
            "running", by.owner, 0, by.ended, by.task_id, by.attempt, crashes, by.arguments
        )
        return outcome

    def waits(self, key: str, by: Message) -> bool:
        """Whether a message that was turned away is published again: one copy of an id waits."""
        entry = self.entries[key]
        known = entry.waiting.get(by.task_id)
        if not by.token:
            return False
        noted = known.token if known and not known.due else None
        if noted not in (None, by.presented) and not (by.redelivered and noted == by.token):
            return False
        entry.waiting = {tid: note for tid, note in entry.waiting.items() if not note.due}
        entry.waiting[by.task_id] = Note(by.token, by.hurried)
        return True

    def renew(self, key: str, owner: str, fence: int, *, ended: bool) -> bool:
        entry = self.mine(key, owner, fence)
        if entry is None or entry.state != "running":
            return False
        entry.ended = ended
        return True

    def complete(self, key: str, owner: str, fence: int) -> str:
        """What is answered: stored, stale or forgotten. See `finish` for what is kept then."""
        entry = self.at(key)
        if entry is None or self.mine(key, owner, fence):
            return "stored"
        return "forgotten" if entry.state == "forgotten" else "stale"

    def finish(self, key: str, by: Message, fence: int, result: bytes, *, ended: bool) -> None:
        self.entries[key] = Entry(
            "done", by.owner, fence, ended, by.task_id, by.attempt, 0, by.arguments, result
        )

    def park(self, key: str, by: Message, fence: int, *, ended: bool) -> bool:
        entry = self.at(key)
        mine = self.mine(key, by.owner, fence)
        if entry is not None and not (mine and mine.open):
            return False
        self.entries[key] = Entry(
            "waiting", by.owner, fence, ended, by.task_id, by.attempt + 1, 0, by.arguments
        )
        return True

    def release(self, key: str, owner: str, fence: int | None = None) -> bool:
        """The holder gives the key back; without a fence, whatever the owner holds."""
        entry = self.at(key)
        if entry is None:
            return True
        if not entry.open or entry.owner != owner or fence not in (None, entry.fence):
            return False
        del self.entries[key]
        return True

    def put_done(self, key: str) -> bool:
        entry = self.at(key)
        return entry is None or entry.gone

    def forget(self, key: str) -> bool:
        entry = self.at(key)
        if entry is None or entry.state == "forgotten":
            return False
        self.entries[key] = Entry("forgotten", "-", entry.fence)
        return True

    def lose(self, key: str) -> None:
        """The store has lost it."""
        self.entries.pop(key, None)
