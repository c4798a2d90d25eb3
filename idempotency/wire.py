"""The record as bytes in Redis: one header line of plain fields, then the result as it is.

    iw1 owner fence state due created attempt crashes authority fingerprint task_id
        endpoint scope user_id device_id waiters result_type \\n result

Owner and fence come first, so that a script compares a prefix. Nothing here evaluates anything:
what does not parse is refused, and so is a record of another version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from .errors import UnreadableRecord
from .record import NO_WAITERS, Claim, Record, State, Waiter

VERSION: Final = "iw1"
FIELDS: Final = 17
_STATES: Final = {state.value: state for state in State}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:@/+][A-Za-z0-9_.:@/+\-]*").fullmatch


def quoted(text: str | None) -> str:
    """`text` as one field: percent-encoded, "-" when there is none."""
    if not text:
        return "-"
    return text if _PLAIN(text) else quote(text, safe="").replace("-", "%2D", 1)


_quoted_once = lru_cache(maxsize=1024)(quoted)


def prefix(owner: str, fence: int) -> str:
    """How the records of this holder begin."""
    return f"{VERSION} {owner} {fence} "


def claim_tail(claim: Claim) -> bytes:
    """Everything after `created` in the record of a granted claim, with a leading space."""
    return f"{_fields(claim, 0)} - -\n".encode()


def done_tail(claim: Claim, created_us: int, result_type: str, result: bytes | None) -> bytes:
    """Everything after `due` in the record of a finished claim, with a leading space."""
    if result is None:
        return f" {created_us}{_fields(claim, 0)} - -\n".encode()
    return f" {created_us}{_fields(claim, 0)} - {quoted(result_type)}\n".encode() + result


def tail(record: Record) -> bytes:
    """Everything after `due`, with a leading space: what a script appends to a due time."""
    r = record
    kind = quoted(r.result_type) if r.result is not None else "-"
    line = f" {r.created_us}{_fields(r, r.crashes)} {pack_waiters(r.waiters)} {kind}\n".encode()
    return line if r.result is None else line + r.result


def _fields(of: Claim | Record, crashes: int) -> str:
    return (
        f" {of.attempt} {crashes} {of.authority} {of.fingerprint or '-'} {quoted(of.task_id)}"
        f" {_quoted_once(of.endpoint)} {of.scope} {quoted(of.user_id)} {quoted(of.device_id)}"
    )


def encode(record: Record) -> bytes:
    """The whole record."""
    head = f"{prefix(record.owner, record.fence)}{record.state} {record.due_us}"
    return head.encode() + tail(record)


def decode(raw: bytes, store: str, key: str) -> Record:
    """The record in `raw`. Raises UnreadableRecord; nothing is guessed."""
    try:
        head, newline, result = raw.partition(b"\n")
        fields = head.decode("ascii").split(" ")
        if fields[0] != VERSION and re.fullmatch(r"iw\d+", fields[0]):
            raise UnreadableRecord(
                store,
                f"the record of {key} is of version {fields[0]}, this code reads {VERSION}: "
                "upgrade this worker",
            )
        if fields[0] != VERSION or len(fields) != FIELDS or not newline:
            raise ValueError("not a record")
        return _record(fields, result)
    except (ValueError, LookupError) as error:
        raise UnreadableRecord(
            store,
            f"the record of {key} cannot be read; look at it, and remove it with "
            f"`idemwatch keys forget {key}`",
        ) from error


def _record(fields: list[str], result: bytes) -> Record:
    (_, owner, fence, state, due, created, attempt, crashes, authority, fingerprint, task_id,
     endpoint, scope, user_id, device_id, waiters, kind) = fields  # fmt: skip
    return Record(
        state=_STATES[state],
        owner=owner,
        fence=int(fence),
        due_us=int(due),
        created_us=int(created),
        attempt=int(attempt),
        crashes=int(crashes),
        authority=authority,
        fingerprint="" if fingerprint == "-" else fingerprint,
        task_id=_text(task_id) or "",
        endpoint=_text(endpoint) or "",
        scope=scope,
        user_id=_text(user_id),
        device_id=_text(device_id),
        waiters=unpack_waiters(waiters),
        result_type="" if kind == "-" else unquote(kind),
        result=None if kind == "-" else result,
    )


def _text(field: str) -> str | None:
    if field == "-":
        return None
    return unquote(field) if "%" in field else field


def pack_waiters(waiters: Mapping[str, Waiter]) -> str:
    """`task_id,token,due;...`, or "-"."""
    if not waiters:
        return "-"
    return ";".join(f"{quote(tid, safe='')},{w.token},{w.due_us}" for tid, w in waiters.items())


def unpack_waiters(text: str) -> Mapping[str, Waiter]:
    """The inverse of `pack_waiters`. Raises ValueError."""
    if text in ("-", ""):
        return NO_WAITERS
    waiters: dict[str, Waiter] = {}
    for item in text.split(";"):
        task_id, token, due = item.split(",")
        waiters[unquote(task_id)] = Waiter(token, int(due))
    return waiters
