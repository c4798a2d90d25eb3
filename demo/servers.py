"""Real servers for the demo and for the tests: child processes on free loopback ports."""

from __future__ import annotations

from .postgres_server import PostgresServer, postgres_bindir
from .processes import ProcessFailed
from .redis_server import RedisServer, redis_binary

__all__ = ["PostgresServer", "ProcessFailed", "RedisServer", "postgres_bindir", "redis_binary"]
