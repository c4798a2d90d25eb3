"""An entry as beat and its peers keep it, as a schedule: task, arguments and options as JSON.

JSON here is what the message would hold: kombu's, which writes dates, UUIDs and decimals as
`{"__type__": ..., "__value__": ...}`. An entry whose arguments are no JSON is a problem and no
schedule, since what cannot be told cannot be compared or published either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from idemwatch.idempotency.errors import ConfigurationError
from kombu.utils.json import dumps

from .celery_timing import Told
from .config import canonical_json
from .errors import InvalidSchedule
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import Schedule
from .occurrences import timing_text
from .place import Place
from .sources import OPTION

T = TypeVar("T")
PRIORITIES: Final = range(10)


def require_app(app: Any | None, source: str) -> Any:
    """The app. Raises ConfigurationError without one."""
    if app is None:
        raise ConfigurationError(OPTION, f"{source} needs an app: celery -A proj idemwatch ...")
    return app


def inventory_of_entries(
    source: str, entries: Iterable[tuple[str, T]], read: Callable[[str, T], Schedule]
) -> Inventory:
    """What `read` makes of names and entries; an entry that is wrong is a problem."""
    schedules: list[Schedule] = []
    problems: list[Problem] = []
    for name, entry in entries:
        try:
            schedules.append(read(name, entry))
        except InvalidSchedule as error:
            problems.append(problem_of(error, Place(source), name))
    return inventory_of(source, schedules, problems)


def schedule_of_entry(
    source: str, name: str, entry: Mapping[str, Any], told: Told, **more: Any
) -> Schedule:
    """A schedule from an entry's task, args, kwargs and options. Raises InvalidSchedule.

    `more`: further fields of the schedule.
    """
    shown = timing_text(told.timing)
    task = entry.get("task")
    if not isinstance(task, str) or not task:
        raise InvalidSchedule(
            shown, "task", "it names no task" if not task else f"{task!r} is none"
        )
    options = _object(shown, "options", entry.get("options"))
    return Schedule(
        id=name,
        name=name,
        task=task,
        timing=told.timing,
        zone=told.zone,
        args=_json(shown, "args", _array(shown, entry.get("args"))),
        kwargs=_json(shown, "kwargs", _object(shown, "kwargs", entry.get("kwargs"))),
        options=_json(shown, "options", {key: _option(value) for key, value in options.items()}),
        priority=_priority(options.get("priority")),
        place=Place(source),
        **more,
    )


def _array(shown: str, given: object) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return list(given)
    raise InvalidSchedule(shown, "args", f"{type(given).__name__} is no list or tuple")


def _object(shown: str, key: str, given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return given
    raise InvalidSchedule(shown, key, f"{type(given).__name__} is no dict")


def _option(given: object) -> object:
    """An option; `expires` and `eta` may be ISO 8601, which apply_async takes as they are."""
    return given.isoformat() if isinstance(given, datetime) else given


def _json(shown: str, key: str, given: object) -> str:
    try:
        return canonical_json(json.loads(dumps(given)))
    except (TypeError, ValueError, RecursionError) as error:
        told = f"{error}: it is left out, for it cannot be compared or published"
        raise InvalidSchedule(
            shown, key, f"it is no JSON ({type(error).__name__}): {told}"
        ) from None


def _priority(given: object) -> int | None:
    """That of messages from 0 to 9; a higher one, as RabbitMQ has them, stays with the options."""
    return given if isinstance(given, int) and given in PRIORITIES else None
