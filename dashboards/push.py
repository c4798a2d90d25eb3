"""What to do with each board in a Grafana. Decisions are pure; `carry_out` alone writes.

Each push leaves the digest of what it wrote as the message of that version. So what is there is
ours while its newest version has such a message: anything else was edited by somebody, and is
replaced only by force. Grafana may tidy up what it keeps, so the digest, and not the text, tells
whether there is anything new.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from .boards import text
from .grafana import Grafana

_MESSAGE: Final = "idemwatch boards push "
_DIGEST: Final = re.compile(rf"{_MESSAGE}([0-9a-f]{{16}})\Z")
_OF_GRAFANA: Final = ("id", "version")
"""What Grafana itself counts in a board."""


class Action(Enum):
    """What is to be done with a board."""

    CREATE = "created"
    UPDATE = "updated"
    NOTHING = "unchanged"
    REFUSE = "edited"
    PROVISIONED = "provisioned"


@dataclass(frozen=True, slots=True)
class Plan:
    """A board, what is there in its place, and what to do. `there`: None, or its API answer."""

    uid: str
    ours: Mapping[str, Any]
    there: Mapping[str, Any] | None
    action: Action

    @property
    def diff(self) -> str:
        """What would change, as a unified diff."""
        before = text(bare(self.there["dashboard"])) if self.there else ""
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            text(bare(self.ours)).splitlines(keepends=True),
            f"{self.uid} in Grafana",
            f"{self.uid} as built",
        )
        return "".join(lines)


def bare(board: Mapping[str, Any]) -> dict[str, Any]:
    """A board without what Grafana counts in it."""
    return {name: value for name, value in board.items() if name not in _OF_GRAFANA}


def digest(board: Mapping[str, Any]) -> str:
    """A short fingerprint of a board."""
    canonical = json.dumps(bare(board), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def decided(
    ours: Mapping[str, Any], there: Mapping[str, Any] | None, message: str, *, force: bool
) -> Action:
    """What to do; `message` is that of the newest version there."""
    if there is None:
        return Action.CREATE
    pushed = _DIGEST.match(message)
    if bare(there["dashboard"]) == bare(ours) or (pushed and pushed[1] == digest(ours)):
        return Action.NOTHING
    if there.get("meta", {}).get("provisioned"):
        return Action.PROVISIONED
    return Action.UPDATE if pushed or force else Action.REFUSE


def planned(
    grafana: Grafana, boards: Mapping[str, Mapping[str, Any]], *, force: bool
) -> Iterable[Plan]:
    """The plan of each board; nothing is written."""
    for uid, ours in boards.items():
        there = grafana.board(uid)
        message = grafana.last_message(uid, there["dashboard"].get("version", 0)) if there else ""
        yield Plan(uid, ours, there, decided(ours, there, message, force=force))


def carry_out(grafana: Grafana, plan: Plan, folder: str | None) -> int:
    """Write a board, unless somebody else did since it was read; its new version."""
    found = plan.there or {"dashboard": {}, "meta": {}}
    place = folder if folder is not None else found.get("meta", {}).get("folderUid") or ""
    there = {name: found["dashboard"][name] for name in _OF_GRAFANA if name in found["dashboard"]}
    payload: dict[str, Any] = {
        "dashboard": {**bare(plan.ours), **there},
        "folderUid": place,
        "message": _MESSAGE + digest(plan.ours),
        # Never true: Grafana then refuses what was changed after we looked.
        "overwrite": False,
    }
    return grafana.save(payload)
