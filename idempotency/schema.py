"""Which schema this code needs: importable without Alembic, as in a worker."""

from __future__ import annotations

from typing import Final

REQUIRED_REVISION: Final = "0003"
VERSION_TABLE: Final = "idemwatch_alembic_version"
