"""Panels of the boards, found by their titles, and what is read off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idemwatch.dashboards.boards import boards

MADE = boards()


def panel(uid: str, title: str, made: Mapping[str, Any] = MADE, kind: str = "") -> Any:
    (found,) = [
        one for one in made[uid]["panels"] if one["title"] == title and kind in ("", one["type"])
    ]
    return found


def limits(panel: Any) -> list[tuple[float, str]]:
    """The colours of a panel's values, from which on."""
    found = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [(step["value"], step["color"]) for step in found]


def columns(panel: Any) -> list[str]:
    (names,) = [one["options"]["renameByName"] for one in panel["transformations"]
                if one["id"] == "organize"]  # fmt: skip
    return list(names.values())
