"""The table of costs: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_RATIO: Final = "x"
_NONE: Final = "no peer has it"


def cost_lines(costs: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """The table, and where a peer costs less."""
    head = ("", "what", "against", "goal", "idemwatch", "peers")
    rows = [head, ("---",) * len(head), *(_row(name, one) for name, one in costs.items())]
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    yield from _cheaper(costs)


def _row(name: str, cost: Mapping[str, Any]) -> Sequence[str]:
    mark = "" if cost["here"] else " *"
    value = "not measured" if cost["value"] is None else _text(cost["value"], cost["unit"])
    peers = sorted(cost["peers"].items(), key=lambda one: float(one[1]))
    told = ", ".join(f"{peer} {_text(one, cost['unit'])}" for peer, one in peers) or _NONE
    return f"`{name}`{mark}", cost["what"], cost["baseline"] or "-", cost["goal"], value, told


def _text(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == _RATIO else f"{value:.3g} {unit}"


def _cheaper(costs: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A line for each row in which idemwatch is slower than a peer."""
    slower = [
        f"`{name}` ({', '.join(found)})" for name, cost in costs.items() if (found := _below(cost))
    ]
    if slower:
        yield f"idemwatch is slower than a peer in {', '.join(slower)}.\n"
    else:
        yield "idemwatch is nowhere slower than a peer.\n"


def _below(cost: Mapping[str, Any]) -> Sequence[str]:
    return [peer for peer, one in cost["peers"].items() if one < cost["value"]]
