"""The plans of the statements that our code sends, as PostgreSQL tells them (auto_explain)."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from idemwatch.idempotency.postgres_link import Connection, PostgresLink

EXPLAINING = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_level": "notice",
    "auto_explain.log_format": "json",
}
"""What a database must be set to."""

Node = dict[str, Any]


def nodes(plan: Node) -> Iterator[Node]:
    """A plan's node and those below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@dataclass(repr=False)
class Plans:
    """The plans of the statements of one operation."""

    statements: list[Node] = field(default_factory=list)

    def __repr__(self) -> str:
        parts = ("Node Type", "Relation Name", "Index Name", "Actual Rows", "Filter")
        return "\n".join(str([n[part] for part in parts if part in n]) for n in self.nodes)

    def note(self, notice: psycopg.errors.Diagnostic) -> None:
        """Take a plan out of a notice."""
        told = notice.message_primary or ""
        if "plan:\n" in told:
            self.statements.append(json.loads(told.split("plan:\n", 1)[1]))

    @property
    def nodes(self) -> list[Node]:
        """All nodes of all plans."""
        return [node for one in self.statements for node in nodes(one["Plan"])]

    @property
    def indexes(self) -> set[str]:
        """The indexes used, also to find conflicts."""
        arbiters = {name for n in self.nodes for name in n.get("Conflict Arbiter Indexes", ())}
        return arbiters | {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def scanned(self) -> set[str]:
        """The tables read from end to end."""
        return {n["Relation Name"] for n in self.nodes if n["Node Type"] == "Seq Scan"}

    def rows_read(self, tables: Container[str]) -> int:
        """Rows read of `tables`, also those that did not fit."""
        read = [
            n for n in self.nodes if n.get("Relation Name") in tables and "Scan" in n["Node Type"]
        ]
        return round(sum(_rows(node) for node in read))


def _rows(node: Node) -> float:
    lost = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + lost) * node["Actual Loops"])


class ExplainedLink(PostgresLink):
    """A link that notes the plan of each statement."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url
        self.plans = Plans()

    def _connect(self) -> Connection:
        connection = super()._connect()
        connection.add_notice_handler(self.plans.note)
        return connection
