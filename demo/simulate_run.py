"""A simulation: one plan, played under plain Celery and then under idemwatch.

Invariant: one after the other, so that each has the machine for itself, and what one side does too
much costs the other nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .simulate_calls import Call, Template, sample_calls, users_calls
from .simulate_judge import judge
from .simulate_plan import Options, Plan, plan
from .simulate_play import Progress, play
from .simulate_report import Report
from .simulate_stage import SIDES, set_stage
from .simulate_tasks import KINDS


@dataclass(frozen=True, slots=True)
class UsersApp:
    """An app of the user's: as `celery -A` takes it, and which calls are made."""

    spec: str
    app: Any
    templates: Sequence[Template]


def prepared(seed: int, options: Options, users: UsersApp | None) -> tuple[Plan, list[Call]]:
    """The plan, and a call for each piece of its work. Raises ConfigurationError."""
    if users is None:
        made = plan(seed, options)
        return made, sample_calls(made, KINDS)
    calls = users_calls(users.app, users.templates, options.works)
    return plan(seed, replace(options, works=len(calls))), calls


def simulate(
    made: Plan,
    calls: Sequence[Call],
    spec: str | None,
    command: str,
    progress: Callable[[str], Progress],
) -> Report:
    """Play it on both sides. Raises ConfigurationError or ProcessFailed."""
    histories = {}
    with set_stage() as stage:
        for side in SIDES:
            with stage.place(side) as place:
                histories[side] = play(place, made, calls, spec, progress(side))
    verdicts = {side: judge(history) for side, history in histories.items()}
    return Report(made, histories, verdicts, command, spec)
