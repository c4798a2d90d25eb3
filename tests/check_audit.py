"""Known faults in what is installed with idemwatch[demo], by pip-audit and PyPI's advisories.

    python tests/check_audit.py [--unreachable-is-told]

pip-audit passes over what the service does not answer for, and would call that a success. Here it
is none: exit 1 for a known fault, 2 where packages could not be looked up. With the option the
second is only told, loudly: for a CI that reaches no more than a mirror of PyPI.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

ROOT: Final = "idemwatch[demo]"
TOLD: Final = "--unreachable-is-told"
SECONDS: Final = 120


def pinned(root: str) -> dict[str, str]:
    """All that is installed because of a requirement: names and versions, without itself."""
    found: dict[str, str] = {}
    todo, seen = [Requirement(root)], set[str]()
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        for name, version, needed in _installed(wanted):
            found[name] = version
            todo += needed
    found.pop(plain(Requirement(root).name), None)
    return found


def plain(name: str) -> str:
    """A package's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(wanted: Requirement) -> Iterator[tuple[str, str, list[Requirement]]]:
    try:
        one = distribution(wanted.name)
    except PackageNotFoundError:
        return  # for another Python or system
    needed = [Requirement(text) for text in one.requires or ()]
    extras = wanted.extras or {""}
    yield plain(one.metadata["Name"]), one.version, [
        each for each in needed
        if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras)
    ]  # fmt: skip


def audit(packages: dict[str, str]) -> list[dict[str, Any]]:
    """What pip-audit says of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "installed.txt"
        file.write_text("".join(f"{name}=={v}\n" for name, v in sorted(packages.items())))
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps",
             "--disable-pip", "--vulnerability-service", "pypi", "--format", "json",
             "--progress-spinner", "off", "--timeout", "10"],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr[-2000:], file=sys.stderr)
        return []
    return found


def verdict(packages: dict[str, str], told: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    answered = {plain(one["name"]) for one in told if "skip_reason" not in one}
    faults = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no version yet'}"
        for one in told
        for fault in one.get("vulns", ())
    ]
    missing = sorted(packages.keys() - answered)
    lines = [*faults, f"{len(answered)} of {len(packages)} packages were looked up"]
    if missing:
        lines.append(f"NOT AUDITED, the advisory service did not answer: {', '.join(missing)}")
    return (1 if faults else 2 if missing else 0), lines


def main(arguments: list[str]) -> int:
    packages = pinned(ROOT)
    code, lines = verdict(packages, audit(packages))
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return 0 if code == 2 and TOLD in arguments else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
