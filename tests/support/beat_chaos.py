"""Beats that are killed and frozen at random, and what became of each due time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.firing_store import FROZEN_SECONDS
from idemwatch.scheduler.model import CatchUp, Schedule

from .beats import Beat, Beats

BEATS: Final = 3
SCHEDULES: Final = 3
HARM: Final = 0.03
"""The chance that a beat dies or freezes right before or right after it publishes a message."""
QUIET_SECONDS: Final = 5.0
"""Before the end nobody is harmed any more."""
_LONGEST_FREEZE: Final = 2.5 * FROZEN_SECONDS
_DUE: Final = """
SELECT count(*) FROM generate_series(
    (SELECT min(due_at) FROM schedule_firing), %s::timestamptz - interval '1 second', '1 second')
"""


@dataclass(frozen=True)
class Outcome:
    """`due`: due times that there were; `publishes`: messages that reached a worker."""

    due: int
    done: int
    done_twice: int
    missed: int
    publishes: int
    kills: int
    freezes: int

    @property
    def passed(self) -> bool:
        """Every due time done once, none missed."""
        return self.done == self.due > 0 and not self.done_twice and not self.missed

    @property
    def second_publishes(self) -> int:
        """Messages of a due time beyond its first."""
        return self.publishes - self.done


def one_second_schedules(until: datetime) -> list[Schedule]:
    """Schedules that are due each second, and may never miss one."""
    one = Schedule(
        id="",
        task="beats.work",
        timing=timing_of("every 1s"),
        uptodate=until,
        misfire_grace=timedelta(hours=1),
        catch_up=CatchUp.ALL,
    )
    return [replace(one, id=f"s{n}", name=f"s{n}", args=f"[{n}]") for n in range(SCHEDULES)]


def run_chaos(
    beats: Beats, seconds: float, seed: int, progress: Callable[[float], None] = lambda _: None
) -> Outcome:
    """Harm the beats for so long; then let them finish, and count."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    beats.add(*one_second_schedules(until))
    harm, began, pause = _Harm(beats, random.Random(seed)), time.monotonic(), threading.Event()
    while (passed := time.monotonic() - began) < seconds - QUIET_SECONDS:
        progress(passed)
        harm.mend(passed)
        harm.do()
        pause.wait(harm.chooser.uniform(0.2, 2.0))
    beats.conf.pop("harm", None)
    for beat in list(beats.beats):  # those that harm themselves are replaced by some that do not
        harm.replace(beat)
    beats.wait("SELECT clock_timestamp() > %s", until)
    beats.wait_for_quiet()
    return _counted(beats, until, harm)


class _Harm:
    """What is done to the beats. Some harm themselves, with a message in their hands."""

    def __init__(self, beats: Beats, chooser: random.Random) -> None:
        self.beats, self.chooser = beats, chooser
        self.kills = self.freezes = 0
        self._thaw_at: dict[Beat, float] = {}

    def replace(self, beat: Beat) -> None:
        """Kill it, and start another."""
        beat.kill()
        self._thaw_at.pop(beat, None)
        self.beats.beats.remove(beat)
        self.beats.start_beat()

    def mend(self, now: float) -> None:
        """Replace the dead, and thaw those that were frozen for longer than any time-out."""
        for beat in list(self.beats.beats):
            if not beat.running():
                self.kills += 1
                self.replace(beat)
            elif beat.frozen():
                if beat not in self._thaw_at:
                    self.freezes += 1
                    length = self.chooser.uniform(FROZEN_SECONDS + 1, _LONGEST_FREEZE)
                    self._thaw_at[beat] = now + length
                elif self._thaw_at[beat] <= now:
                    del self._thaw_at[beat]
                    beat.thaw()

    def do(self) -> None:
        """Kill or freeze one that is well."""
        well = [beat for beat in self.beats.beats if beat.running() and not beat.frozen()]
        if not well:
            return
        victim = self.chooser.choice(well)
        if self.chooser.random() < 0.5:
            self.kills += 1
            self.replace(victim)
        else:
            victim.freeze()


def _counted(beats: Beats, until: datetime, harm: _Harm) -> Outcome:
    done = beats.ledger("done")
    return Outcome(
        due=SCHEDULES * int(beats.execute(_DUE, until)[0][0]),
        done=len(done),
        done_twice=sum(times > 1 for times in done.values()),
        missed=beats.outcomes()["missed"],
        publishes=sum(beats.ledger("delivered").values()),
        kills=harm.kills,
        freezes=harm.freezes,
    )
