"""Whether Prometheus sees us: targets, rules and firing alerts, by its HTTP API.

Invariant: an answer of any form is read; what is not as Prometheus writes it is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from idemwatch.alerts.names import STATE_JOB, WORKER_JOB
from idemwatch.idempotency.errors import ConfigurationError

from .doctor_fetch import NotFetched, fetch, shown
from .doctor_findings import Finding, error, info, listed, ok, warning

OURS: Final = "idemwatch-"
"""How the names of our rule groups begin."""
NAME: Final = "prometheus"
HOW: Final = "see README, Boards and alerts"


class Prometheus:
    """The checks on one Prometheus."""

    def __init__(self, url: str, jobs: Sequence[str] = (STATE_JOB, WORKER_JOB)) -> None:
        self._url, self._jobs = url, jobs

    def targets(self) -> Iterator[Finding]:
        """Are the jobs there, and their targets up."""
        try:
            data = self._ask("targets?state=active")
        except NotFetched as problem:
            yield _away(problem)
            return
        found = [one for one in _list(data, "activeTargets") if isinstance(one, dict)]
        for job in self._jobs:
            yield target_finding(job, [one for one in found if _job(one) == job])

    def rules(self) -> Iterator[Finding]:
        """Are our rules loaded, and do alerts of theirs fire."""
        try:
            data = self._ask("rules")
        except NotFetched:
            return  # the targets' check tells it
        yield from rule_findings([one for one in _list(data, "groups") if isinstance(one, dict)])

    def _ask(self, path: str) -> Any:
        text = fetch(f"{self._url}/api/v1/{path}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise NotFetched(shown(self._url), "what answers there is no Prometheus")
        return answer.get("data")


def _away(problem: NotFetched) -> Finding:
    change = "correct --prometheus-url (a path, as http://host/prometheus, may belong to it)"
    if problem.status in (401, 403):
        change = "say user and password, as https://user:password@prometheus"
    return error(NAME, str(problem), change)


def _list(data: Any, name: str) -> list[Any]:
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _job(target: dict[str, Any]) -> str:
    labels = target.get("labels")
    return str(labels.get("job", "")) if isinstance(labels, dict) else ""


def target_finding(job: str, targets: Sequence[dict[str, Any]]) -> Finding:
    """Whether a job is scraped."""
    if not targets:
        told = f"Prometheus has no target of job {job}"
        what = "the state exporter" if job == STATE_JOB else "the workers (/sd of the exporter)"
        return warning(NAME, told, f"scrape {what}: {HOW}")
    down = [one for one in targets if one.get("health") not in ("up", "unknown")]
    up = sum(one.get("health") == "up" for one in targets)
    if not down and up < len(targets):
        return info(NAME, f"job {job}: {len(targets) - up} of {len(targets)} are not scraped yet")
    if not down:
        return ok(NAME, f"job {job}: {up} up")
    where = listed([shown(str(one.get("scrapeUrl", "?"))) for one in down])
    told = f"job {job}: {len(down)} of {len(targets)} are not up: {where}"
    return error(NAME, told, "see its page Status, Targets for the reason")


def rule_findings(groups: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Whether our rules are loaded and sound, and which alerts fire."""
    ours = [one for one in groups if str(one.get("name", "")).startswith(OURS)]
    if not ours:
        told = "Prometheus has no rule group of idemwatch: nobody is alerted"
        yield warning(NAME, told, f"`idemwatch rules build`, and load them: {HOW}")
        return
    rules = [one for group in ours for one in _list(group, "rules") if isinstance(one, dict)]
    broken = [str(one.get("name", "?")) for one in rules if one.get("health") == "err"]
    if broken:
        told = f"rules that Prometheus cannot evaluate: {listed(broken)}"
        yield error(NAME, told, "`idemwatch rules build` again, with this version")
    else:
        yield ok(NAME, f"{len(ours)} rule groups, {len(rules)} rules")
    yield _firing(rules)


def _firing(rules: Sequence[dict[str, Any]]) -> Finding:
    """What always fires, to show that alerting lives, has severity none."""
    firing: Counter[str] = Counter()
    for rule in rules:
        labels = rule.get("labels")
        severity = labels.get("severity") if isinstance(labels, dict) else None
        active = [one for one in _list(rule, "alerts") if isinstance(one, dict)]
        number = sum(one.get("state") == "firing" for one in active)
        if number and severity != "none":
            firing[str(rule.get("name", "?"))] += number
    if not firing:
        return ok(NAME, "no alert of idemwatch fires")
    told = ", ".join(f"{name} ({number})" for name, number in sorted(firing.items()))
    return warning(NAME, f"alerts are firing: {told}", "each has a runbook, in alerts/runbooks")


def unasked() -> Finding:
    """Nobody said where Prometheus is."""
    return info(NAME, "not asked", "--prometheus-url http://prometheus:9090 looks there too")


def checked_jobs(names: Sequence[str]) -> tuple[str, ...]:
    """The names of jobs. Raises ConfigurationError."""
    if not all(names):
        raise ConfigurationError("--job", "a job has a name")
    return tuple(names)
