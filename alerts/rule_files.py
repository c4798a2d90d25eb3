"""The two files of rules, as texts."""

from __future__ import annotations

from collections.abc import Mapping
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
