"""What the crons of this world read differently."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from . import fields
from .fields import Field

Days = Literal["either", "both", "quartz"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The fields of an expression in their order, and how its two day fields go together.

    `days`: "either" fits when both are restricted (cron's OR), "both" must fit (Celery), or one of
    them is `?` (Quartz). `star_steps`: whether `*/2` leaves a day field unrestricted, as in Vixie
    cron, which looks at the first character.
    """

    name: str
    fields: tuple[Field, ...]
    optional: tuple[Field, ...] = ()
    days: Days = "either"
    star_steps: bool = False
    macros: bool = True
    zone_suffix: bool = False


def _wrapping(*given: Field) -> tuple[Field, ...]:
    return tuple(replace(field, wraps=True) for field in given)


_FIVE: Final = (fields.MINUTE, fields.HOUR, fields.DAY, fields.MONTH)
VIXIE: Final = Dialect("vixie", (*_FIVE, fields.WEEKDAY_TO_7), star_steps=True)
K8S: Final = Dialect("k8s", (*_FIVE, fields.WEEKDAY))
SIDEKIQ: Final = Dialect("sidekiq", _wrapping(*_FIVE, fields.WEEKDAY_TO_7), zone_suffix=True)
CELERY: Final = Dialect(
    "celery",
    tuple(
        replace(
            field,
            wraps=True,
            open_steps=False,
            names=field.names if field is fields.WEEKDAY else {},
        )
        for field in (*_FIVE, fields.WEEKDAY)
    ),
    days="both",
    macros=False,
)
QUARTZ: Final = Dialect(
    "quartz",
    _wrapping(fields.SECOND, *_FIVE, fields.QUARTZ_WEEKDAY),
    optional=_wrapping(fields.YEAR),
    days="quartz",
    macros=False,
)
DIALECTS: Final = {one.name: one for one in (VIXIE, CELERY, QUARTZ, SIDEKIQ, K8S)}
MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
