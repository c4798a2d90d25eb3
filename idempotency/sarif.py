"""SARIF 2.1.0: what every log of ours has in common, for code scanning and for editors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from .keys import digest

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
MOST_RESULTS: Final = 5000
"""Code scanning shows no more, and refuses files that are much larger."""


def sarif_log(
    command: str,
    version: str,
    rules: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    invocation: Mapping[str, Any],
) -> str:
    """One run of `idemwatch COMMAND`; `results` come the worst first."""
    driver = {
        "name": "idemwatch", "fullName": f"idemwatch {command}", "version": version,
        "rules": list(rules),
    }  # fmt: skip
    run = {
        "tool": {"driver": driver},
        "invocations": [dict(invocation)],
        "columnKind": "unicodeCodePoints",
        "results": list(results),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def invocation(
    exit_code: int, notes: Sequence[str], *, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """It ran: what it found is no failure of the run. What it could not look at is a warning."""
    told = [("warning", text) for text in warnings] + [("note", text) for text in notes]
    return {
        "executionSuccessful": not warnings,
        "exitCode": exit_code,
        "toolExecutionNotifications": [
            {"level": level, "message": {"text": text}} for level, text in told
        ],
    }


def left_out(count: int) -> list[str]:
    """That there is more than `MOST_RESULTS`."""
    return [f"{count} more findings were left out: see --format json"] if count else []


def rule(
    code: str, summary: str, help_text: str, level: str, tags: Sequence[str]
) -> dict[str, Any]:
    """A rule, as code scanning shows it."""
    return {
        "id": code,
        "shortDescription": {"text": summary},
        "fullDescription": {"text": f"{summary}. {help_text}"},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": list(tags)},
    }


def fingerprint(*parts: object) -> dict[str, str]:
    """The same for the same finding after its line has moved."""
    text = repr(parts).encode("utf-8", "surrogatepass")
    return {"idemwatchFinding/v1": digest(b"1", text)}


def location(
    source: str, line: int, column: int, root: Path, *, named: str = "", kind: str = "resource"
) -> dict[str, Any]:
    """What is about no line is told at the first: code scanning drops what stands nowhere."""
    region: dict[str, int] = {"startLine": line or 1}
    if column:
        region["startColumn"] = column
    found: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": _artifact(source, root), "region": region}
    }
    if named:
        found["logicalLocations"] = [{"fullyQualifiedName": named, "kind": kind}]
    return found


def _artifact(source: str, root: Path) -> Mapping[str, str]:
    """A path within `root` as a relative URI; one outside as a whole one."""
    path = root / source
    if path.is_relative_to(root) and ".." not in path.parts:
        return {
            "uri": quote(os.fsencode(path.relative_to(root).as_posix())),
            "uriBaseId": "%SRCROOT%",
        }
    return {"uri": path.resolve().as_uri()}
