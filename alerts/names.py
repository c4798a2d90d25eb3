"""The names that rules, boards, configuration and exporter share. Imports nothing of ours."""

from __future__ import annotations

import re
from typing import Final

STATE_JOB: Final = "idemwatch"
"""The Prometheus job of the state exporter."""
WORKER_JOB: Final = "idemwatch-worker"
"""The Prometheus job of the workers."""

OVERVIEW: Final = "idemwatch-overview"
IDEMPOTENCY: Final = "idemwatch-idempotency"
SCHEDULES: Final = "idemwatch-schedules"
PIPELINE: Final = "idemwatch-pipeline"
BOARDS: Final = (OVERVIEW, IDEMPOTENCY, SCHEDULES, PIPELINE)
"""The uids of the boards: a board is at GRAFANA/d/UID."""

REPOSITORY: Final = "https://github.com/idemwatch/idemwatch"
RUNBOOKS: Final = f"{REPOSITORY}/blob/main/alerts/runbooks"
GRAFANA: Final = "http://localhost:3000"

_JOB: Final = re.compile(r"[\w./:@-]{1,200}", re.ASCII)


def job_name(text: str) -> str:
    """The name of a job, which is put into PromQL as it is. Raises ValueError."""
    if not _JOB.fullmatch(text):
        raise ValueError(f"{text!r} is no job name: letters, digits and . / : @ _ -")
    return text
