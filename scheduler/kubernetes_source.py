"""Schedules from Kubernetes manifests: each CronJob of `batch/*`, in documents and in lists.

Its name is its task: two that run one image with other variables are two. Without `timeZone` it
follows its controller's clock, which is UTC nearly everywhere. `concurrencyPolicy: Replace`, which
ends the run that goes on, is nearest to `queue_one`.
"""

from __future__ import annotations

import re
from typing import Final

from .config import schedule_of
from .dialects import K8S, MACROS
from .errors import InvalidSchedule
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import Overlap, Schedule, Status
from .occurrences import EVERY
from .place import Place
from .yaml_nodes import TEMPLATE, Node, NodeError, documents

JOB: Final = "CronJob"
JOBS: Final = "CronJobList"
LISTS: Final = ("List", JOBS)
OVERLAPS: Final = {
    "Allow": Overlap.ALLOW,
    "Forbid": Overlap.SKIP,
    "Replace": Overlap.QUEUE_ONE,
}
WRITTEN: Final = {
    "timezone": "timeZone",
    "misfire_grace_seconds": "startingDeadlineSeconds",
}
"""Where each part of our configuration stands; the others are of `schedule`."""
_FLAGS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PIECE: Final = re.compile(r"(\d{1,12}(?:\.\d{0,12})?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_EVERY: Final = re.compile(rf"@every \+?((?:{_PIECE.pattern})+)", re.ASCII)
_HASHED: Final = re.compile(r"\bH\b", re.IGNORECASE)


def read_manifests(path: str, text: str) -> Inventory:
    """The CronJobs of a file of YAML documents. Raises ConfigurationError without PyYAML."""
    schedules: list[Schedule] = []
    problems: list[Problem] = []
    for document in documents(path, text):
        try:
            for node, kind in _objects(document):
                _add(path, node, kind, schedules, problems)
        except NodeError as error:
            problems.append(_problem(path, error))
    if not schedules and not problems:
        problems.append(Problem(Place(path, 1, 1), f"it has no {JOB}"))
    return inventory_of(path, schedules, problems)


def _problem(path: str, error: NodeError, name: str = "") -> Problem:
    return Problem(Place(path, error.line, error.column), error.problem, name)


def _objects(document: Node | NodeError) -> list[tuple[Node, str]]:
    """The objects of a document, each with its kind if it names none. Raises NodeError."""
    if isinstance(document, NodeError):
        raise document
    if document.null:
        return []
    kind = document.text_of("kind")
    if not kind:
        raise document.wrong("it has no kind, so it is no Kubernetes object")
    if kind not in LISTS:
        return [(document, kind)]
    items = document.find("items")
    if items is not None and items.kind != "sequence":
        raise items.wrong(TEMPLATE if items.templated else "items must be a list")
    return [(item, JOB if kind == JOBS else "") for item in (items.children if items else ())]


def _is_job(node: Node, kind: str) -> bool:
    group = node.text_of("apiVersion", "batch/v1").partition("/")[0]
    return node.text_of("kind", kind) == JOB and group == "batch"


def _add(
    path: str, node: Node, kind: str, schedules: list[Schedule], problems: list[Problem]
) -> None:
    """The schedule or the problem of a CronJob; other kinds are passed over."""
    name, spec = "", node
    try:
        if not _is_job(node, kind):
            return
        name, spec = _name(node), node.get("spec")
        schedules.append(_schedule(path, name, spec))
    except NodeError as error:
        problems.append(_problem(path, error, name))
    except InvalidSchedule as error:
        wrong = spec.find(WRITTEN.get(error.part, "schedule")) or spec
        problems.append(problem_of(error, Place(path, wrong.line, wrong.column), name))


def _name(job: Node) -> str:
    meta = job.get("metadata")
    name = meta.text_of("name") or meta.text_of("generateName")
    if not name:
        raise meta.wrong("it has no name")
    namespace = meta.text_of("namespace")
    return f"{namespace}/{name}" if namespace else name


def _schedule(path: str, name: str, spec: Node) -> Schedule:
    at = spec.get("schedule")
    config = {
        "id": name,
        "cron_expression": _expression(spec.text_of("schedule")),
        "dialect": K8S.name,
        "timezone": _zone(spec),
        "status": Status.PAUSED if _suspended(spec) else None,
        "overlap": _overlap(spec),
        "misfire_grace_seconds": spec.text_of("startingDeadlineSeconds"),
    }
    return schedule_of(config, place=Place(path, at.line, at.column))


def _expression(given: str) -> str:
    """As robfig/cron reads it, and the API server checks it. Raises InvalidSchedule."""
    if "TZ" in given:
        told = "Kubernetes refuses TZ and CRON_TZ here since 1.29: use spec.timeZone"
        raise InvalidSchedule(given, "expression", told)
    if _HASHED.search(given):
        raise InvalidSchedule(given, "expression", "Kubernetes knows no H")
    if found := _EVERY.fullmatch(given):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(found[1]))
        return f"{EVERY}{max(1, int(seconds))}s"
    if given.startswith("@") and given not in MACROS:
        told = f"Kubernetes knows {', '.join(MACROS)}, in lower case, and @every 1h30m"
        raise InvalidSchedule(given, "expression", told)
    if given.startswith(EVERY):
        raise InvalidSchedule(given, "expression", f"say @{given}")
    return given


def _zone(spec: Node) -> str:
    node = spec.find("timeZone")
    zone = spec.text_of("timeZone")
    if node is not None and not zone:
        raise node.wrong("timeZone is empty: name an IANA zone, or leave it out")
    return zone


def _suspended(spec: Node) -> bool:
    node = spec.find("suspend")
    if node is None:
        return False
    flag = _FLAGS.get(spec.text_of("suspend").lower())
    if flag is None or not node.plain:
        raise node.wrong("suspend must be true or false, without quotes")
    return flag


def _overlap(spec: Node) -> Overlap:
    given = spec.text_of("concurrencyPolicy", "Allow")
    if given not in OVERLAPS:
        node = spec.get("concurrencyPolicy")
        raise node.wrong(f"concurrencyPolicy must be one of {', '.join(OVERLAPS)}")
    return OVERLAPS[given]
