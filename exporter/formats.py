"""Which text format of metrics a client gets: one that is written here, whatever it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from .requests import Request

OPENMETRICS: Final = "application/openmetrics-text"
OPENMETRICS_1: Final = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"


def encoder_for(request: Request) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """How metrics are written for a client, and the content type of that."""
    try:
        return choose_encoder(request.header("Accept") or "")
    except (TypeError, ValueError):  # of a version that is none, which the library compares
        return choose_encoder("")
