"""`make audit`: what nobody answered for is no success, and no fault is passed over."""

from __future__ import annotations

from typing import Any

import check_audit
import pytest

PACKAGES = {"celery": "5.6.0", "prometheus-client": "0.22"}
CLEAN: list[dict[str, Any]] = [
    {"name": "celery", "version": "5.6.0", "vulns": []},
    {"name": "prometheus_client", "version": "0.22", "vulns": []},
]
FAULT = {"id": "PYSEC-1", "fix_versions": ["5.6.1"]}


def test_what_is_known_to_be_clean_is_a_success() -> None:
    assert check_audit.verdict(PACKAGES, CLEAN) == (0, ["2 of 2 packages were looked up"])


def test_a_known_fault_is_told_with_the_version_that_mends_it() -> None:
    code, lines = check_audit.verdict(PACKAGES, [{**CLEAN[0], "vulns": [FAULT]}, CLEAN[1]])
    assert code == 1 and lines[0] == "celery 5.6.0: PYSEC-1, mended in 5.6.1"


@pytest.mark.parametrize("option", [[], [check_audit.TOLD]])
@pytest.mark.parametrize("fault", [[], [FAULT]])
def test_a_service_that_does_not_answer_is_no_success_unless_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    fault: list[dict[str, Any]],
) -> None:
    skipped = {"name": "prometheus_client", "skip_reason": "Dependency not found on PyPI"}
    monkeypatch.setattr(check_audit, "pinned", lambda _: PACKAGES)
    monkeypatch.setattr(check_audit, "audit", lambda _: [{**CLEAN[0], "vulns": fault}, skipped])
    assert check_audit.main(option) == (1 if fault else 0 if option else 2)
    assert "NOT AUDITED" in capsys.readouterr().err


def test_all_that_the_demo_installs_is_asked_for() -> None:
    found = check_audit.pinned(check_audit.ROOT)
    assert {"celery", "redis", "psycopg", "bcrypt", "numpy", "alembic", "fpdf2"} <= found.keys()
    assert "idemwatch" not in found and "pytest" not in found
