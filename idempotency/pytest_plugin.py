"""A pytest fixture for the unit tests of those who use idemwatch: no server is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .memory_store import MemoryStore


@pytest.fixture
def idempotency_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStore]:
    """Keep the records of all tasks and services in memory, empty for each test."""
    from .app_settings import reread_settings
    from .engine import close_engines
    from .stores import MEMORY

    monkeypatch.setenv("IDEMWATCH_STORE", "memory")
    close_engines()
    reread_settings()
    MEMORY.clear()
    yield MEMORY
    close_engines()
    MEMORY.clear()
    reread_settings()
