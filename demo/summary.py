"""The demo's summary: what was executed and turned away, and whether each effect happened once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .ledger import Verdict
from .scoreboard import Row

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The numbers, and the names of the work that went wrong."""

    seconds: float
    works: int
    messages: int
    executed: int
    redelivered: int
    turned_away: int
    met_running: int
    hit_rate: float
    killed: int
    effects_once: int
    effects_twice: int
    effects_lost: int
    doubled: tuple[str, ...]
    lost: tuple[str, ...]

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
    ) -> Summary:
        """From the counters of all tasks and the verdict over the effects."""
        return cls(
            seconds=seconds,
            works=verdict.once + len(verdict.twice) + len(verdict.lost),
            messages=messages,
            executed=row.executed,
            redelivered=redelivered,
            turned_away=row.turned_away,
            met_running=row.met_running,
            hit_rate=round(row.hit_rate, 4),
            killed=killed,
            effects_once=verdict.once,
            effects_twice=len(verdict.twice),
            effects_lost=len(verdict.lost),
            doubled=verdict.twice,
            lost=verdict.lost,
        )

    @property
    def good(self) -> bool:
        """Whether each effect happened exactly once."""
        return not self.effects_twice and not self.effects_lost

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
        for what, works in (("more than once", self.doubled), ("never", self.lost)):
            if works:
                lines.append(f"{what}: {', '.join(works[:_NAMED])}{' ...' * (len(works) > _NAMED)}")
        return "\n".join(lines)
