"""What boards are built for: thresholds, the jobs that Prometheus scrapes, where runbooks are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from idemwatch.alerts.names import RUNBOOKS, STATE_JOB, WORKER_JOB, job_name
from idemwatch.alerts.thresholds import Thresholds

_SPECIAL: Final = re.compile(r"[.]")
_URL: Final = re.compile(r"https?://[^\s\"'`{}<>\\?#@$]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of a build. Raises ValueError for what would spoil a board."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    job: str = STATE_JOB
    worker_job: str = WORKER_JOB
    runbook_url: str = RUNBOOKS

    def __post_init__(self) -> None:
        for name in (self.job, self.worker_job):
            job_name(name)
        if not _URL.fullmatch(self.runbook_url):
            # Not repeated: there may be a password in it, and it would be in every board.
            raise ValueError("the address of the runbooks is none like https://host/path")

    @property
    def jobs(self) -> str:
        """Both jobs, as a regular expression inside a string of PromQL."""
        names = dict.fromkeys((self.job, self.worker_job))
        return "|".join(_SPECIAL.sub(r"\\\\.", name) for name in names)
