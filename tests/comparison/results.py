"""The raw run: results.json, and what of it is said against idemwatch."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from .cases import CASES
from .seen import Kind, Seen, Verdict
from .systems import SYSTEMS

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = Path(__file__).with_name("results.json")
_GIGABYTE: Final = 1 << 30


def read(path: Path = RESULTS) -> dict[str, Any]:
    """The last run. Raises OSError or ValueError."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def text(results: Mapping[str, Any]) -> str:
    """The file's content."""
    return json.dumps(results, indent=2, ensure_ascii=False) + "\n"


def machine() -> dict[str, Any]:
    """When and on what: no name that tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / _GIGABYTE),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The version of each system, and of what the costs compare with."""
    more = ("redis", "python-redis-lock", "pottery", "cronstable")
    return {name: version(name) for name in (*(one.package for one in SYSTEMS), *more)}


def as_plain(seen: Seen) -> dict[str, Any]:
    """For JSON; times in hundredths."""
    return {
        **asdict(seen),
        "callers": list(seen.callers),
        "waited_seconds": round(seen.waited_seconds, 2),
    }


def seen_of(plain: Mapping[str, Any]) -> Seen:
    """What as_plain wrote."""
    return Seen(**{**plain, "callers": tuple(plain["callers"])})


def verdicts(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Verdict]]:
    """The verdict on each system in each case."""
    return {
        name: {system: CASES[name].judge(seen_of(one)) for system, one in found.items()}
        for name, found in cases.items()
    }


def contradictions(judged: Mapping[str, Mapping[str, Verdict]]) -> Iterable[str]:
    """Where idemwatch itself did not do what it promises."""
    ours = [system.name for system in SYSTEMS if system.ours]
    for name, found in judged.items():
        for system in ours:
            if system in found and found[system].kind not in _allowed(name, system):
                yield f"{name}: {system}: {found[system].text}"


def _allowed(case: str, system: str) -> set[Kind]:
    return {Kind.GOOD, CASES[case].limits.get(system, Kind.GOOD)}
