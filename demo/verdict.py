"""The verdict over the effects: each once, or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .ledger import MAIL


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often the effects that were expected happened."""

    once: int
    twice: tuple[str, ...]
    lost: tuple[str, ...]


def judge(expected: Iterable[str], effects: Mapping[str, int]) -> Verdict:
    """Compare the pieces of work that were published with the effects that were counted.

    What happened twice is told whether it was expected or not.
    """
    works = set(expected)
    twice = tuple(sorted(work for work, count in effects.items() if count > 1))
    lost = tuple(sorted(work for work in works if not effects.get(work, 0)))
    once = sum(effects.get(work, 0) == 1 for work in works)
    return Verdict(once=once, twice=twice, lost=lost)


def without_repeated_mail(
    effects: Mapping[str, int], taken_over: int
) -> tuple[dict[str, int], int]:
    """The effects, and how many mails went out again under their own Message-ID.

    An SMTP server refuses no second mail, so an attempt that died or lost its lease after the 250
    is repeated, and counted as taken over: so many repeats are no double, and no more.
    """
    again = sum(n - 1 for work, n in effects.items() if work.startswith(f"{MAIL}:"))
    if again > taken_over:
        return dict(effects), again
    mails = {work: 1 for work in effects if work.startswith(f"{MAIL}:")}
    return {**effects, **mails}, again
