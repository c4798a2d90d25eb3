"""The load map and the planner, on fleets of fleets.py: in CPU time, from schedules already read.

What is not in it on either side: reading expressions. parse_cron keeps what it has read, and so
would be measured as nothing or as the size of its memory.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC
from hashlib import blake2b
from importlib import import_module
from statistics import median
from typing import Any, Final

from idemwatch.scheduler.cron import Cron
from idemwatch.scheduler.load import DAY, load_map
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.pieces import Piece, laid, split
from idemwatch.scheduler.planner import plan

from .fleets import NOW, SEED, fleet
from .lab import Lab
from .measure import Measured, Operation, against
from .peers import HASHED, JITTERED

CAPACITY: Final = 14
TURNS: Final = 40
PLANS: Final = 15


def load_map_10k(lab: Lab) -> Measured:
    """The runs at once in each minute of 24 hours, against cronstable's map of the same fleet.

    We are given schedules with their masks, and count what runs in each minute, durations and runs
    that began before included. cronstable's `schedule_pressure` is given its own read `CronTab`s,
    and counts what starts in each minute, without durations, with up to ten names a minute. Both
    are given the same expressions in UTC and begin at the same midnight.
    """
    schedules = fleet(10_000)
    return _compared(lab, _mapped(schedules), _cronstable(schedules))


def load_map_100k(lab: Lab) -> Measured:
    """The same map of ten times as many schedules, against that of the 10,000."""
    return _compared(lab, _mapped(fleet(100_000)), _mapped(fleet(10_000)))


def _compared(lab: Lab, ours: Operation, baseline: Operation) -> Measured:
    return against(ours, baseline, calls=1, turns=lab.turns(TURNS), clock=time.process_time)


def _mapped(schedules: Sequence[Schedule]) -> Operation:
    return lambda: load_map(schedules, NOW, capacity=CAPACITY, minutes=DAY)


def _cronstable(schedules: Sequence[Schedule]) -> Operation:
    info: Any = import_module("cronstable.croninfo")
    tab: Any = import_module("cronstable.cronexpr").CronTab
    entries = [
        info.ScheduleEntry(one.id, tab(one.timing.expression), UTC)
        for one in schedules
        if isinstance(one.timing, Cron)
    ]
    return lambda: info.schedule_pressure(entries, NOW, DAY // 60)


def plan_peak_1k(_: Lab) -> Measured:
    """The highest load of a week after the plan, against the lower bound of any plan."""
    return _peaks(fleet(1_000))


def plan_peak_10k(_: Lab) -> Measured:
    """The same with 10,000 schedules."""
    return _peaks(fleet(10_000))


def _peaks(schedules: Sequence[Schedule]) -> Measured:
    """The peers choose among the shifts that the plan may choose from, each for itself."""
    found = plan(schedules, NOW, capacity=CAPACITY, strategy="spread")
    chance = random.Random(SEED)
    peers = {
        HASHED: _peak(schedules, _by_hash),
        JITTERED: _peak(schedules, lambda piece: chance.choice(piece.kind.shifts.tolist())),
    }
    untouched = int(found.before.concurrency.max())
    return Measured(
        found.after.concurrency.max() / found.bound,
        {name: peak / found.bound for name, peak in peers.items()},
        f"{found.bound} at once (untouched {untouched}: {untouched / found.bound:.1f})",
    )


def _peak(schedules: Sequence[Schedule], shift: Callable[[Piece], int]) -> float:
    pinned, pieces = split(schedules, NOW)
    counts = Counter((piece.kind, shift(piece)) for piece in pieces)
    return float((pinned + laid([(*stand, count) for stand, count in counts.items()])).max())


def _by_hash(piece: Piece) -> int:
    """As Jenkins' H: the place in the window is a hash of the name."""
    digest = blake2b(piece.schedule.id.encode(), digest_size=8).digest()
    shifts = sorted(piece.kind.shifts.tolist())
    return int(shifts[int.from_bytes(digest) % len(shifts)])


def plan_cpu_10k(lab: Lab) -> Measured:
    """Seconds of CPU of a first plan of 10,000 schedules, the load before and after included."""
    schedules = fleet(10_000)
    spent = [_first_plan(schedules) for _ in lab.turns(PLANS)]
    return Measured(median(spent), baseline=f"best {min(spent):.2f} s")


def _first_plan(schedules: Sequence[Schedule]) -> float:
    _forget()
    gc.collect()
    began = time.process_time()
    plan(schedules, NOW, capacity=CAPACITY, strategy="spread")
    return time.process_time() - began


def _forget() -> None:
    """Empty every cache of scheduler/."""
    for name, module in list(sys.modules.items()):
        if name.startswith("idemwatch.scheduler."):
            for one in vars(module).values():
                if hasattr(one, "cache_clear"):
                    one.cache_clear()
