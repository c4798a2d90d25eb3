"""Settings of a Celery app: `idempotency_*` in its conf, in any of Celery's spellings."""

from __future__ import annotations

import itertools
from typing import Any

from .settings import NAMES, PREFIX, Settings, load


def settings_of(app: Any) -> Settings:
    """The settings of `app`, over those of the environment; read once for each app.

    Raises ConfigurationError for an unknown or wrong setting.
    """
    generation = _generation
    known = getattr(app, "_idemwatch_settings", None)
    if known is not None and known[0] == generation:
        return known[1]  # type: ignore[no-any-return]
    conf = app.conf
    namespace = f"{app.namespace or ''}_".lower()
    values: dict[str, object] = {}
    for option in map(str, list(conf)):  # what is unknown must be there to be refused
        name = option.lower().removeprefix(namespace)
        if name.startswith(PREFIX):
            values[name] = conf[option]
    for name in NAMES:  # found by .get() also under a namespace, as CELERY_IDEMPOTENCY_TTL
        value = conf.get(PREFIX + name)
        if value is not None:
            values[PREFIX + name] = value
    settings = load(values)
    app._idemwatch_settings = (generation, settings)
    return settings


def reread_settings() -> None:
    """Read the settings of every app again at their next use: the environment has changed."""
    global _generation
    _generation = next(_generations)


_generations = itertools.count(1)
_generation = 0
