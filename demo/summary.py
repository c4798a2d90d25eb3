"""The demo's summary: what was executed and turned away, whether each effect happened once, and who
was paged for what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from .scenarios import Outcome
from .scoreboard import Row
from .verdict import Verdict
from .webhook import Notification

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The numbers, and the names of the work that went wrong.

    `mails_again`: sent once more, with the same Message-ID, by an attempt that took over.
    `tasks`: how often each ran to an end. `alerts`: names of those that fired; `notifications`:
    what was delivered, `pages` of it woke somebody; `scenario`: what it came to, None without one.
    """

    seconds: float
    works: int
    messages: int
    executed: int
    checks: int
    redelivered: int
    turned_away: int
    met_running: int
    hit_rate: float
    killed: int
    mails_again: int
    effects_once: int
    effects_twice: int
    effects_lost: int
    doubled: tuple[str, ...]
    lost: tuple[str, ...]
    tasks: Mapping[str, int] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    notifications: tuple[dict[str, object], ...] = ()
    pages: tuple[dict[str, object], ...] = ()
    scenario: Outcome | None = None

    @classmethod
    def of(
        cls,
        row: Row,
        verdict: Verdict,
        *,
        seconds: float,
        messages: int,
        redelivered: int,
        killed: int,
        mails_again: int = 0,
        tasks: Mapping[str, int] | None = None,
        addresses: Mapping[str, str] | None = None,
        alerts: tuple[str, ...] = (),
        notifications: Sequence[Notification] = (),
        outcome: Outcome | None = None,
    ) -> Summary:
        """From the counters of all tasks, the verdict over the effects, and what was delivered."""
        return cls(
            seconds=seconds,
            works=verdict.once + len(verdict.twice) + len(verdict.lost),
            messages=messages,
            executed=row.executed,
            checks=row.checks,
            redelivered=redelivered,
            turned_away=row.turned_away,
            met_running=row.met_running,
            hit_rate=round(row.hit_rate, 4),
            killed=killed,
            mails_again=mails_again,
            effects_once=verdict.once,
            effects_twice=len(verdict.twice),
            effects_lost=len(verdict.lost),
            doubled=verdict.twice,
            lost=verdict.lost,
            tasks=dict(tasks or {}),
            addresses=dict(addresses or {}),
            alerts=alerts,
            notifications=tuple(one.as_dict() for one in notifications),
            pages=tuple(one.as_dict() for one in notifications if one.page),
            scenario=outcome,
        )

    @property
    def good(self) -> bool:
        """Whether each effect happened exactly once, and the scenario went as it should."""
        once = not self.effects_twice and not self.effects_lost
        return once and (self.scenario is None or self.scenario.as_expected)

    def as_json(self) -> str:
        """One JSON object, with a newline at its end."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def __str__(self) -> str:
        lines = [
            f"{self.works} pieces of work were published in {self.messages} messages, "
            f"{self.redelivered} deliveries were not the first, {self.killed} processes were "
            "killed.",
            f"executed {self.executed}, turned away {self.turned_away} ({self.met_running} met a "
            f"running one), hit rate {self.hit_rate:.1%}",
            f"effects: {self.effects_once} happened once, {self.effects_twice} more than once, "
            f"{self.effects_lost} never",
        ]
        if self.mails_again:
            lines.append(
                f"{self.mails_again} mails were sent again after a lost lease, with the Message-ID "
                "they had"
            )
        for what, works in (("more than once", self.doubled), ("never", self.lost)):
            if works:
                lines.append(f"{what}: {', '.join(works[:_NAMED])}{' ...' * (len(works) > _NAMED)}")
        if self.alerts:
            lines.append(f"alerts that fired: {', '.join(self.alerts)}; pages: {len(self.pages)}")
        if self.scenario is not None:
            verdict = "as expected" if self.scenario.as_expected else "NOT as expected"
            lines.append(f"scenario {self.scenario.scenario}, {verdict}:")
            lines += [f"  {sentence}" for sentence in self.scenario.told]
        return "\n".join(lines)
