"""Every query of every board, asked of a real Prometheus that scrapes the running demo.

Each must have an answer within two minutes of its start: a panel that stays empty is no panel.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from idemwatch.alerts.names import BOARDS
from idemwatch.dashboards.queries import Asked, queries
from support.demo_run import Demo, ended, start_demo, within
from support.stores import wait_until

pytestmark = pytest.mark.worker
JSON = Path(__file__).parents[1] / "dashboards" / "json"
DEADLINE_SECONDS = 120.0


@dataclass
class Live:
    """The demo's Prometheus, and when the demo began to publish."""

    prometheus: str
    began: float

    def ask(self, query: str) -> list[Any]:
        """What an instant query gives. Raises AssertionError if it is refused."""
        url = f"{self.prometheus}/api/v1/query?{urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return list(json.load(reply)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    @property
    def seconds_left(self) -> float:
        """Until a panel must have something to show."""
        return max(0.0, self.began + DEADLINE_SECONDS - time.monotonic())


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The demo with its mixed traffic, which runs until the tests are done."""
    with ended(start_demo(tmp_path_factory.mktemp("demo"))) as demo:
        with within(demo):
            prometheus = demo.address("prometheus")
            demo.wait_for_line("publishing")
        threading.Thread(target=_drain, args=(demo,), daemon=True).start()
        yield Live(prometheus, time.monotonic())
        demo.interrupt()
        wait_until(lambda: demo.process.poll() is not None, 120)
        assert demo.process.returncode == 0
        assert demo.leftovers() == []


def _drain(demo: Demo) -> None:
    """Its output is a pipe, which must not get full."""
    assert demo.process.stdout is not None
    for _ in demo.process.stdout:
        pass


def asked(uid: str) -> list[Asked]:
    """The queries of a board as it is committed."""
    return queries(json.loads((JSON / f"{uid}.json").read_text("utf-8")))


@pytest.mark.parametrize("uid", BOARDS)
def test_every_query_of_a_board_has_an_answer(live: Live, uid: str) -> None:
    empty = asked(uid)
    assert empty

    def all_answered() -> bool:
        empty[:] = [one for one in empty if not live.ask(one.expr)]
        return not empty

    pause = threading.Event()
    while not all_answered() and live.seconds_left:
        pause.wait(1.0)
    assert [f"{one.panel} {one.ref}: {one.expr}" for one in empty] == []
