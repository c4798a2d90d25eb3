"""A plan as text: the day before and after, beside what no plan can be below, and its moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from idemwatch.alerts.thresholds import BUSY, HOT

from .advice import Advice
from .bars import axis_for, bar, colour_of, percent, ruler
from .load_view import counted, time_of
from .occurrences import timing_text
from .planner import Plan
from .terminal import Screen
from .text_table import Column, table

MOST_SHOWN: Final = 20
URGENCIES: Final = {"critical": "red", "high": "red", "medium": "yellow"}
_MOVES: Final = (
    Column("SCHEDULE", least=12),
    Column("NOW", least=16),
    Column("PROPOSED", least=16),
    Column("URGENCY", colours=URGENCIES),
    Column("LOAD"),
    Column("REASON"),
)


def plan_chart(plan: Plan, zone: str, on: Screen) -> list[str]:
    """Two bars for each half hour, on one axis."""
    now, proposed = (load.by_half_hour(zone).tolist() for load in (plan.before, plan.after))
    axis = axis_for([*now, *proposed], (on.width - len("00:00 ") - 2 * 6 - 2) // 2)
    width = axis.width + len("  100%")
    titles = f"{'now':<{width}}  proposed"
    rulers = f"{ruler(axis):<{width}}  {ruler(axis)}".rstrip()
    lines = [on.styled(f"      {one}", dim=True) for one in (titles, rulers)]
    for slot, loads in enumerate(zip(now, proposed, strict=True)):
        halves = (bar(load, axis, on) + _share(load, on) for load in loads)
        lines.append(f"{time_of(slot)} {'  '.join(halves)}")
    return lines


def _share(load: float, on: Screen) -> str:
    return on.styled(f"{percent(load):>6}", colour_of(load) if load else None)


def plan_summary(plan: Plan, zone: str, on: Screen) -> list[str]:
    """Highest load and hotspots before and after, and the lower bound."""
    was, becomes = plan.before, plan.after
    bound = f"{plan.bound / was.capacity:.0%}"
    loads = [float(one.load.max(initial=0)) for one in (was, becomes)]
    hot = [str(int((one.by_half_hour(zone) > HOT).sum())) for one in (was, becomes)]
    titles = ("NOW", "PROPOSED", "LOWER BOUND")
    columns = [Column(""), *(Column(title, right=True) for title in titles)]
    rows = [
        ["highest load", *(f"{load:.0%}" for load in loads), bound],
        ["half hours over 70%", *hot, ""],
    ]
    return table(columns, rows, on)


def moves_table(
    advice: Sequence[Advice], zone: str, on: Screen, most: int | None = MOST_SHOWN
) -> list[str]:
    """The moves, the most urgent first; `most` None shows all."""
    shown = advice if most is None else advice[:most]
    lines = table(_MOVES, [_move(one, zone, on) for one in shown], on)
    if len(shown) < len(advice):
        lines.append(f"... and {len(advice) - len(shown):,} more (--all shows all)")
    return lines


def _move(one: Advice, zone: str, on: Screen) -> list[str]:
    arrow = "→" if on.unicode else "->"
    return [
        one.move.before.label,
        timing_text(one.move.before.timing),
        timing_text(one.move.after.timing),
        one.urgency,
        f"{one.before:.0%} {arrow} {one.after:.0%}",
        f"{one.code} {one.time(zone)}",
    ]


def plan_view(
    plan: Plan, advice: Sequence[Advice], zone: str, on: Screen, *, whole: bool
) -> list[str]:
    """All of it; what there is to say where nothing is moved."""
    chart = [*plan_chart(plan, zone, on), "", *plan_summary(plan, zone, on), ""]
    if not advice:
        return [*chart, nothing_to_move(plan)]
    heading = f"{counted(len(advice), 'move')} of the strategy {plan.strategy}:"
    return [*chart, heading, *moves_table(advice, zone, on, None if whole else MOST_SHOWN)]


def nothing_to_move(plan: Plan) -> str:
    """Why a plan has no moves."""
    enough = {"balanced": HOT, "spread": BUSY}.get(plan.strategy, 0.0)
    if float(plan.before.load.max(initial=0)) <= enough:
        return f"nothing to move: no minute is over {enough:.0%}"
    return "nothing to move: what may be moved is where the plan has it"
