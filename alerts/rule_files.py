"""The two files of rules: their text, and how they are put into a folder.

Invariant: a file is there whole, or as it was before; both texts are made before one is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EISDIR
from pathlib import Path
from typing import Any, Final

from . import idempotency_alerts, pipeline_alerts, recording, schedule_alerts
from .rule import Build, Group

RECORDING: Final = "recording.yml"
ALERTS: Final = "alerts.yml"
HEADER: Final = """\
# Made by `idemwatch rules build DIR` from the code in alerts/: change that, and build again.
# Load it with `rule_files:` in prometheus.yml. Prometheus 2.42 and newer.
"""
LINE_WIDTH: Final = 100_000
"""No text is folded: a diff shows whole sentences."""


def rule_groups(build: Build) -> dict[str, list[Group]]:
    """All groups, by the name of their file."""
    alerts = (idempotency_alerts, schedule_alerts, pipeline_alerts)
    return {
        RECORDING: recording.groups(build),
        ALERTS: [module.group(build) for module in alerts],
    }


def texts(build: Build) -> dict[str, str]:
    """The text of each file, by its name. Needs pyyaml: raises ModuleNotFoundError."""
    return {
        name: _header(build) + _yaml({"groups": [group.yaml(build) for group in groups]})
        for name, groups in rule_groups(build).items()
    }


def _header(build: Build) -> str:
    if build.scale.is_real:
        return HEADER
    return f"{HEADER}# Every window is divided by {build.scale.factor:g}: for demonstrations.\n"


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml  # an extra: thresholds must stay importable without it

    class Dumper(yaml.SafeDumper):
        """Writes what has several lines as a block, as people do."""

    def block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, block)
    return str(
        yaml.dump(document, Dumper=Dumper, sort_keys=False, width=LINE_WIDTH, allow_unicode=True)
    )


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Put the files into the folder, which is made if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (folder / name).is_dir():  # else it would be found after the first file is in place
            raise IsADirectoryError(EISDIR, "it is a folder", str(folder / name))
    written: Sequence[tuple[Path, Path]] = [
        (folder / f".{name}.{os.getpid()}.tmp", folder / name) for name in files
    ]
    try:
        for (beside, _), text in zip(written, files.values(), strict=True):
            _write_new(beside, text)
        for beside, path in written:
            beside.replace(path)
    finally:
        for beside, _ in written:
            with suppress(OSError):
                beside.unlink()


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
