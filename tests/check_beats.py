"""`make test-beats`: three beats on one database are killed and frozen at random.

Every due time must be done once and none be missed; second publishes are counted. Exits 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.migrate import upgrade
from support.beat_chaos import BEATS, HARM, Outcome, run_chaos
from support.beats import Beats, open_beats


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="make test-beats", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default 120)")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the faults")
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        del os.environ[name]
    print(f"{BEATS} beats, schedules of one second, {asked.seconds:g} s, seed {asked.seed}")
    with ExitStack() as stack:
        outcome = run_chaos(_open(stack), asked.seconds, asked.seed, _progress(asked.seconds))
    print(_told(outcome))
    return 0 if outcome.passed else 1


def _open(stack: ExitStack) -> Beats:
    postgres = PostgresServer.start()
    stack.callback(postgres.stop)
    redis = RedisServer.start()
    stack.callback(redis.stop)
    upgrade(postgres.url)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idemwatch-beats-")))
    return stack.enter_context(
        open_beats(
            folder, broker=redis.database(0), database_url=postgres.url, beats=BEATS, harm=HARM
        )
    )


def _progress(seconds: float) -> Callable[[float], None]:
    def show(passed: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{passed:4.0f} of {seconds:g} s", end="", file=sys.stderr, flush=True)

    return show


def _told(outcome: Outcome) -> str:
    return (
        f"{outcome.kills} kills, {outcome.freezes} freezes longer than any time-out\n"
        f"{outcome.due} due times: {outcome.done} done, {outcome.done_twice} done twice, "
        f"{outcome.due - outcome.done} not done, {outcome.missed} recorded as missed\n"
        f"{outcome.second_publishes} second publishes, turned away by the worker\n"
        f"{'PASSED' if outcome.passed else 'FAILED'}"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
