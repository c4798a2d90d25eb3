"""The page, from a duplicate to the one who is woken, through the real programs.

A real worker gets injected duplicates; the committed configuration of Prometheus and Alertmanager
and the rules of `idemwatch rules build` run sixty times faster; a webhook stands for PagerDuty.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from idemwatch.alerts.names import GRAFANA, IDEMPOTENCY, RUNBOOKS, WORKER_JOB
from idemwatch.alerts.thresholds import HIT_RATE
from support.demo_run import play

pytestmark = pytest.mark.worker
PAGE = "IdempotencyHitRateHigh"


def test_duplicates_page_somebody_and_the_end_of_them_is_told(tmp_path: Path) -> None:
    played = play(tmp_path, "duplicate-storm", seconds=120)
    assert (played.code, played.err) == (0, ""), played.out
    assert played.summary["hit_rate"] > HIT_RATE
    assert played.summary["effects_twice"] == played.summary["effects_lost"] == 0

    (page,) = played.delivered(PAGE, "firing")
    assert page["labels"] == {
        "alertname": PAGE,
        "job": WORKER_JOB,
        "severity": "critical",
        "environment": "production",
    }
    assert page["annotations"]["runbook_url"] == f"{RUNBOOKS}/{PAGE}.md"
    assert page["annotations"]["dashboard_url"].startswith(f"{GRAFANA}/d/{IDEMPOTENCY}")
    assert "auto_close_jobs" in page["annotations"]["description"]
    (resolved,) = played.delivered(PAGE, "resolved")
    assert resolved["at"] > page["at"]
    assert played.paged == {PAGE}
    # Told when it came, and at the end.
    said = f"s  page delivered: {PAGE}: {page['annotations']['summary']}. "
    assert said + page["annotations"]["description"] in played.out
    assert played.out.count(f"page delivered: {PAGE}") == 1
    assert f"s  resolution delivered: {PAGE}" in played.out
    assert f"the page {PAGE} was delivered to the webhook" in played.out
