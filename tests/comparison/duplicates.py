"""Cases of work that comes more than once.

What each does, and what is to be seen of one that stands it, is told by its Case in cases.py.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Final

from .seen import Seen
from .sites import Site
from .tasks import KEYED, PART, TOTAL, UNENCODABLE, WORK

ONE_AFTER_ANOTHER_SECONDS: Final = 4.0
REDELIVERY_SECONDS: Final = 14.0


def called_twice_at_once(site: Site) -> Seen:
    label = site.plan(["gate", "effect"])
    calls = [site.call(WORK, label) for _ in range(2)]
    site.started(label, 2, 1.5)
    _open_all(site, label)
    return site.seen(label, calls)


def called_again_later(site: Site) -> Seen:
    label = site.plan()
    first = site.call(WORK, label)
    site.finish(first)
    return site.seen(label, [first, site.call(WORK, label)])


def delivered_again_while_running(site: Site) -> Seen:
    label = site.plan(["sleep 6", "effect"])
    call = site.call(WORK, label)
    site.started(label, 1)

    def over() -> bool:
        return site.count(label) == site.count(label, "end") and site.quiet()

    settled = site.wait(over, REDELIVERY_SECONDS)
    seen = site.seen(label, settled=settled)
    site.over(label)
    site.settle()
    return replace(seen, callers=(site.answer(call),))


def delivered_again_after_it_ended(site: Site) -> Seen:
    label, task_id = site.plan(), str(uuid.uuid4())
    call = site.call(WORK, label, options={"task_id": task_id})
    site.finish(call)
    site.call_by_name(WORK, label, task_id=task_id)
    site.settle()
    site.watch(0.5)
    return site.seen(label, [call])


def published_by_name(site: Site) -> Seen:
    label = site.plan(["gate", "effect"], ["effect"])
    first = site.call(WORK, label)
    site.started(label, 1)
    by_name = site.call_by_name(WORK, label)
    site.ended(label, 2, ONE_AFTER_ANOTHER_SECONDS)
    site.watch(0.2)
    third = site.call(WORK, label)
    site.started(label, 3, 1.5)
    _open_all(site, label)
    return site.seen(label, [first, by_name, third])


def one_call_written_three_ways(site: Site) -> Seen:
    label = site.plan(["gate", "effect"])
    calls = [
        site.call(WORK, label, 7),
        site.call(WORK, label, x=7),
        site.call(WORK, label, 7, y=0),
    ]
    site.started(label, 3, 2.0)
    _open_all(site, label)
    return site.seen(label, calls)


def calls_that_look_alike(site: Site) -> Seen:
    label = site.plan(["gate", "effect"])
    calls = [site.call(WORK, label, 1), site.call(WORK, label, "1")]
    site.started(label, 2, 2.0)
    _open_all(site, label)
    return site.seen(label, calls)


def one_key_with_other_arguments(site: Site) -> Seen:
    label = site.plan()
    first = site.call(KEYED, label, 100)
    site.finish(first)
    return site.seen(label, [first, site.call(KEYED, label, 200)])


def one_key_with_the_same_arguments(site: Site) -> Seen:
    label = site.plan()
    first = site.call(KEYED, label, 100)
    site.finish(first)
    return site.seen(label, [first, site.call(KEYED, label, 100)])


def result_of_zero(site: Site) -> Seen:
    label = site.plan(["effect", "return 0"])
    first = site.call(WORK, label)
    site.finish(first)
    return site.seen(label, [first, site.call(WORK, label)])


def result_that_cannot_be_stored(site: Site) -> Seen:
    label = site.plan()
    site.call(UNENCODABLE, label)
    site.started(label, 1)
    site.settle(1.0)
    site.call(UNENCODABLE, label)
    site.started(label, 2, 1.0)
    settled = site.settle(8.0)
    return site.seen(label, settled=settled)


def chord_with_a_part_delivered_twice(site: Site) -> Seen:
    label = site.plan()
    body = site.plan()
    site.plan_for(f"{label}/3", ["gate", "effect"])
    with site.workers_frozen():
        parts = [site.signature(PART, label, x) for x in (1, 2, 3)]
        call = site.chord(parts, site.signature(TOTAL, body))
        site.duplicate_message(PART.name, f"'{label}', 2")
    site.started(f"{label}/3", 1)
    site.ended(f"{label}/2", 2, 2.0)
    site.open(f"{label}/3", 1)
    answer = site.answer(call)
    site.settle()
    effects = sum(site.count(f"{label}/{x}", "effect") for x in (1, 2, 3))
    return Seen(site.count(body), effects, callers=(answer,))


def _open_all(site: Site, label: str) -> None:
    for number in range(1, 6):
        site.open(label, number)
