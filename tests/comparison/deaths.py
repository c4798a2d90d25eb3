"""Cases of work whose process dies, or whose end never comes.

What each does, and what is to be seen of one that stands it, is told by its Case in cases.py.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from .protection import Kind
from .seen import Seen
from .sites import Site
from .systems import HOLD_SECONDS
from .tasks import LIMITED, SHORT, WORK

BLOCKED_SECONDS: Final = HOLD_SECONDS + 5.0
POISON_SECONDS: Final = 40.0
ENOUGH: Final = 8
"""A message that killed so many is not going to be given up."""


def child_killed(site: Site) -> Seen:
    return _killed(site, "kill")


def worker_killed(site: Site) -> Seen:
    return _killed(site, "killworker")


def _killed(site: Site, step: str) -> Seen:
    label = site.plan([step], ["effect"])
    call = site.call(WORK, label)
    site.started(label, 1)
    began = time.monotonic()
    site.wait(lambda: site.count(label, "effect") > 0, BLOCKED_SECONDS)
    waited = time.monotonic() - began
    seen = site.seen(label, [call], waited_seconds=waited)
    site.revive()
    return seen


def child_killed_after_its_effect(site: Site) -> Seen:
    label = site.plan(["commit", "kill"], ["commit"])
    call = site.call(WORK, label)
    site.ended(label, 2, BLOCKED_SECONDS)
    return site.seen(label, [call], effects=site.committed(label))


def message_that_kills(site: Site) -> Seen:
    label = site.plan(["kill"])
    call = site.call(SHORT, label)
    site.started(label, 1)
    site.wait(lambda: site.count(label) > ENOUGH, POISON_SECONDS, or_quiet=True)
    settled, executions = site.quiet(), site.count(label)
    site.over(label)
    return site.seen(label, [call], executions=executions, settled=settled)


def hard_time_limit(site: Site) -> Seen:
    label = site.plan(["sleep 60"], ["effect"])
    site.finish(site.call(LIMITED, label))
    return _until_let_in(site, LIMITED, label)


def expired_before_it_ran(site: Site) -> Seen:
    label = site.plan()
    past = datetime.now(UTC) - timedelta(seconds=1)
    site.call(WORK, label, options={"expires": past})
    site.settle()
    return _until_let_in(site, WORK, label)


def ignored(site: Site) -> Seen:
    label = site.plan(["ignore"], ["effect"])
    site.call(WORK, label)
    site.ended(label, 1)
    return _until_let_in(site, WORK, label)


def publishing_failed(site: Site) -> Seen:
    label = site.plan()
    site.call(WORK, label, options={"serializer": "no such serializer"})
    return _until_let_in(site, WORK, label)


def retried(site: Site) -> Seen:
    label = site.plan(["retry"], ["effect"])
    call = site.call(WORK, label)
    site.wait(lambda: site.count(label, "effect") > 0, 5.0, or_quiet=True)
    return site.seen(label, [call])


def frozen_past_its_lock(site: Site) -> Seen:
    label = site.plan(["gate", "fail"], ["gate", "effect"], ["effect"])
    site.call(SHORT, label)
    site.started(label, 1)
    with site.frozen(label, 1):
        site.let_in(SHORT, label, BLOCKED_SECONDS, more=lambda: site.count(label) > 1)
    site.open(label, 1)
    site.ended(label, 1)
    site.watch(0.2)
    site.call(SHORT, label)
    site.started(label, 3, 1.5)
    seen = site.seen(label)
    site.open(label, 2)
    site.settle()
    return seen


def longer_than_its_lock(site: Site) -> Seen:
    label = site.plan(["sleep 6", "effect"])
    first = site.call(SHORT, label)
    site.started(label, 1)
    site.watch(1.0)
    site.redis_proxy.reset()
    site.postgres_proxy.reset()
    site.watch(3.0)
    second = site.call(SHORT, label)
    site.started(label, 2, 1.5)
    return site.seen(label, [first, second])


def _until_let_in(site: Site, kind: Kind, label: str) -> Seen:
    def done() -> bool:
        return site.count(label, "effect") > 0

    waited = site.let_in(kind, label, BLOCKED_SECONDS, more=done)
    return site.seen(label, waited_seconds=waited)
