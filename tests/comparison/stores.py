"""Cases of a store that loses what it had, or does not answer.

What each does, and what is to be seen of one that stands it, is told by its Case in cases.py.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from .seen import Seen
from .sites import Call, Site
from .systems import HOLD_SECONDS
from .tasks import WORK

AWAY_SECONDS: Final = 3.0
BLOCKED_SECONDS: Final = HOLD_SECONDS + 5.0


def reply_to_the_claim_lost(site: Site) -> Seen:
    site.warm()
    label = site.plan()
    call = site.cut_reply(lambda: site.call(WORK, label))
    began = time.monotonic()

    def done() -> bool:
        return site.count(label, "effect") > 0

    if call.refused:
        site.let_in(WORK, label, BLOCKED_SECONDS, more=done)
    else:
        site.wait(done, BLOCKED_SECONDS)
    waited = time.monotonic() - began
    calls = [] if call.refused else [call]
    return site.seen(label, calls, waited_seconds=waited)


def redis_emptied_while_it_runs(site: Site) -> Seen:
    label = site.plan(["gate", "effect"])
    first = site.call(WORK, label)
    site.started(label, 1)
    site.empty_store()
    second = site.call(WORK, label)
    site.started(label, 2, 4.0)
    for number in (1, 2):
        site.open(label, number)
    return site.seen(label, [first, second])


def redis_away_when_called(site: Site) -> Seen:
    label = site.plan()
    calls: list[Call] = []
    with site.store_away():
        caller = threading.Thread(target=lambda: calls.append(site.call(WORK, label)))
        caller.start()
        site.watch(AWAY_SECONDS)
    caller.join()
    return site.seen(label, calls)


def redis_away_when_it_ends(site: Site) -> Seen:
    label = site.plan(["gate", "effect"], ["effect"])
    first = site.call(WORK, label)
    site.started(label, 1)
    with site.store_away():
        site.open(label, 1)
        site.ended(label, 1)
        site.watch(AWAY_SECONDS)
    began = time.monotonic()
    if site.system.at_publish:  # which lets it run again, unless its lock is stuck
        site.let_in(WORK, label, BLOCKED_SECONDS, more=lambda: site.count(label) > 1)
    else:
        site.answer(site.call(WORK, label), BLOCKED_SECONDS)
    waited = time.monotonic() - began
    site.settle()
    effects = site.count(label, "effect", first.task_id)
    return site.seen(label, [first], effects=effects, waited_seconds=waited)
