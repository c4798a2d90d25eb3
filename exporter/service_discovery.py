"""GET /sd: the workers' endpoints, as Prometheus asks for them (http_sd).

A worker that died stays in the list for 15 minutes, so that its `up == 0` can alert. Without a
fresh list the answer is 503, upon which Prometheus keeps the targets that it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from .endpoint import Route
from .requests import Answer, Request
from .worker_collector import WorkerCollector
from .worker_directory_store import Listed

PATH: Final = "/sd"
TEXT: Final = "the workers' endpoints, for Prometheus' http_sd_configs"
NODE: Final = "__meta_idemwatch_node"


def route(collector: WorkerCollector) -> Route:
    """The answer to GET /sd."""

    def answer(_: Request) -> Answer:
        workers = collector.listed()
        if workers is None:
            text = "the workers are not known: Redis was not read lately, its log says why"
            return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, text)
        body = json.dumps(target_groups(workers)).encode()
        return Answer(HTTPStatus.OK, body, "application/json")

    return answer


def target_groups(workers: Iterable[Listed]) -> list[dict[str, Any]]:
    """A group for each target, of the node that was seen there last; in a steady order."""
    by_target: dict[str, Listed] = {}
    for one in workers:
        if one.target is not None:
            there = by_target.setdefault(one.target, one)
            if one.ago_seconds < there.ago_seconds:
                by_target[one.target] = one
    return [
        {"targets": [target], "labels": {NODE: one.node, "__scheme__": one.scheme}}
        for target, one in sorted(by_target.items())
    ]
