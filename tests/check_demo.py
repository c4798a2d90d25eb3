"""Runs `make demo` as a user would, scrapes it while it runs, and checks what it counted.

The exposition goes through `promtool check metrics`, so an ill-formed or badly named metric fails.
Prometheus and Alertmanager are installed here, so its many duplicates must page somebody.
Used by .ci/run; not collected by pytest, since it needs promtool and half a minute.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

STARTED = "idemwatch_claims_total{"
START_SECONDS = 300
TASKS = (
    *("auto_close_jobs", "ticket_escalation", "create_ppm_job", "create_scheduled_reports"),
    "send_reminder_email",
)


def free_port() -> int:
    """A port that was free a moment ago on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(url: str) -> str | None:
    """The exposition at `url`, or None while nobody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return str(reply.read().decode())
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException):
        return None


def scrape_running(demo: subprocess.Popen[bytes], url: str) -> str:
    """The exposition, once the demo's worker has made its first claims."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and demo.poll() is None:
        exposition = scrape(url)
        if exposition is not None and claimed(exposition) > 0:
            return exposition
        time.sleep(0.2)
    raise SystemExit(f"{url} showed no claim while the demo ran (exit code {demo.poll()})")


def claimed(exposition: str) -> float:
    """All checks that the exposition counts."""
    lines = exposition.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(STARTED))


def lint(exposition: str) -> None:
    """Fail unless promtool finds nothing to say."""
    promtool = subprocess.run(["promtool", "check", "metrics"], input=exposition.encode())
    if promtool.returncode:
        raise SystemExit("promtool check metrics found fault with the demo's /metrics")


def wrong_counts(summary: dict[str, Any]) -> list[str]:
    """What the demo's summary must not say."""
    wanted = ("redelivered", "turned_away", "pages")
    missing = [f"{name}: none" for name in wanted if not summary[name]]
    broken = [f"{name} is not 0" for name in ("effects_twice", "effects_lost") if summary[name]]
    ran = summary["tasks"]
    return missing + broken + [f"{name} never ran" for name in TASKS if not ran.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    seconds = parser.parse_args().seconds
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder, "out.json")
        options = f"--seconds {seconds} --json {summary} --metrics-port {port}"
        with subprocess.Popen(["make", "demo", f"ARGS={options}"]) as demo:
            lint(scrape_running(demo, f"http://127.0.0.1:{port}/metrics"))
        counted = json.loads(summary.read_text())
    print(json.dumps(counted, indent=2))
    if demo.returncode or wrong_counts(counted):
        sys.exit(f"the demo failed ({demo.returncode}): {', '.join(wrong_counts(counted))}")


if __name__ == "__main__":
    main()
