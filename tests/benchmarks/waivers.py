"""Goals that are missed for a reason: waivers.toml names each, why, and what the profile found."""

from __future__ import annotations

import tomllib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("waivers.toml")
_FIELDS: Final = {"reason", "finding"}


class WaiverError(ValueError):
    """waivers.toml is wrong; the text says what to change."""


@dataclass(frozen=True)
class Waiver:
    """Why a missed goal is let pass, and where a profile sees the time go."""

    reason: str
    finding: str


def read_waivers(benches: Container[str], path: Path = FILE) -> dict[str, Waiver]:
    """Waivers by bench. Raises WaiverError for a name that is no bench, or what says too little."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise WaiverError(f"{path.name} cannot be read: {error}") from error
    waivers: dict[str, Waiver] = {}
    for name, fields in tables.items():
        if name not in benches:
            raise WaiverError(f"{path.name} names {name}, which is no bench: remove it")
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or not _all_say(fields):
            raise WaiverError(f"{path.name}: {name} needs a reason and a finding, and nothing else")
        waivers[name] = Waiver(**fields)
    return waivers


def _all_say(fields: dict[str, object]) -> bool:
    return all(isinstance(text, str) and text.strip() for text in fields.values())
