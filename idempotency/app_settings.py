"""Settings of a Celery app: `idempotency_*` in its conf, in any of Celery's spellings."""

from __future__ import annotations

from typing import Any

from .settings import NAMES, PREFIX, Settings, load


def settings_of(app: Any) -> Settings:
    """The settings of `app`, over those of the environment; read once for each app.

    Raises ConfigurationError for an unknown or wrong setting.
    """
    known = getattr(app, "_idemwatch_settings", None)
    if isinstance(known, Settings):
        return known
    conf = app.conf
    values: dict[str, object] = {
        option: conf[option] for option in list(conf) if str(option).startswith(PREFIX)
    }
    for name in NAMES:  # found by .get() also under a namespace, as CELERY_IDEMPOTENCY_TTL
        value = conf.get(PREFIX + name)
        if value is not None:
            values[PREFIX + name] = value
    settings = load(values)
    app._idemwatch_settings = settings
    return settings


def forget_settings(app: Any) -> None:
    """Read the settings of `app` again at next use: its conf has changed."""
    app._idemwatch_settings = None
