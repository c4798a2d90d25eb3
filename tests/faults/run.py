"""`make faults`: play rounds of faults until the time is over or a breach is found."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from idemwatch.demo.servers import ProcessFailed

from faults.checker import breaches
from faults.plan import TOPOLOGIES
from faults.play import HarnessFailed, Player, Stopped
from faults.report import seen, told
from faults.rules import RULES, disable
from faults.scenes import SCENES, TELLING, round_of
from faults.servers import FAKETIME, Site, open_site

BREACHED: Final = 1
EPILOG: Final = """\
A round takes 15 to 30 s: workers start, messages come, faults are made; then all is healed, the
broker is drained, and the checker holds the ledger against the guarantee, sentence by sentence.
One seed tells one plan: the same rounds with the same messages and faults.

DISABLE=rule takes a rule of the protocol out of the workers (the harness patches them, the product
has no such switch). Then a breach must be found; the scene that tells soonest is played first, and
again, so that a minute is enough.

Exit codes: 0 no breach, 1 a breach (its seed, round, sentence and the key's history are printed),
2 wrong arguments, 3 the harness itself failed, 130 Ctrl-C.

examples:
  make faults                                   two minutes, a random seed (printed)
  make faults SEED=3 MINUTES=10
  make faults SEED=3 ROUND=4                    one round once more
  make faults SEED=1 MINUTES=2 DISABLE=owner_check   must exit 1
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make faults",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the plan (default: random)")
    parser.add_argument(
        "--minutes", type=minutes, default=2.0, metavar="M", help="begin no round after (2)"
    )
    parser.add_argument(
        "--disable", choices=sorted(RULES), metavar="RULE", help=f"one of {', '.join(RULES)}"
    )
    parser.add_argument(
        "--only", type=round_number, metavar="K", help="play round K alone (ROUND=K)"
    )
    parser.add_argument(
        "--scene", choices=sorted(SCENES), metavar="NAME", help=f"one of {', '.join(SCENES)}"
    )
    parser.add_argument("--logs", action="store_true", help="keep the workers' logs, tell where")
    parser.add_argument("--topology", choices=TOPOLOGIES, help="the Redis of every round")
    return parser.parse_args()


def minutes(text: str) -> float:
    """More than none, at most a day."""
    number = float(text)
    if not 0 < number <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text}: from above 0 to 1440 minutes")
    return number


def round_number(text: str) -> int:
    """From 0 on."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: rounds are numbered from 0")
    return number


class Run:
    """One run of the command."""

    def __init__(self, asked: argparse.Namespace, site: Site, stop: threading.Event) -> None:
        self._asked, self._site, self._stop = asked, site, stop
        self._seed: int = asked.seed
        self._began = time.monotonic()
        self._played = self._messages = self._faults = 0
        self._seen: Counter[str] = Counter()

    def run(self) -> int:
        """Play; the exit code. Raises Stopped."""
        rule, seconds = self._asked.disable or "", self._asked.minutes * 60
        scene = self._asked.scene or TELLING.get(rule, "")
        only = self._asked.only
        for number in itertools.count() if only is None else (only,):
            if number and only is None and time.monotonic() - self._began > seconds:
                break
            if self._breached(number, scene, rule):
                return BREACHED
        print(
            f"no breach: seed {self._seed}, {self._played} rounds, {self._messages} messages, "
            f"{self._faults} faults in {time.monotonic() - self._began:.0f} s"
        )
        print("seen: " + ", ".join(f"{count} {name}" for name, count in self._seen.most_common()))
        return 0

    def _breached(self, number: int, scene: str, rule: str) -> bool:
        plan = round_of(self._seed, number, scene, self._asked.topologies)
        _progress(f"{time.monotonic() - self._began:4.0f} s  {plan.title}")
        history = Player(self._site, plan, rule, self._stop).play()
        self._played += 1
        self._messages += len(plan.messages)
        self._faults += len(history.faults) + len(history.forgets)
        self._seen += seen(history)
        found = breaches(history)
        if found:
            _progress("")
            print(told(history, found))
        return bool(found)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:118]}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run it; the exit code."""
    asked = _arguments()
    if asked.seed is None:
        asked.seed = random.randrange(100_000)
    asked.topologies = (asked.topology,) if asked.topology else TOPOLOGIES
    for name in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        if name != "IDEMWATCH_TEST_SERVERS":
            del os.environ[name]
    if asked.disable == "cache_tombstone":
        disable(asked.disable)  # the operator who forgets is this process
    logging.getLogger("idemwatch").setLevel(logging.CRITICAL)
    print(
        f"seed {asked.seed}" + (f", without {asked.disable}" if asked.disable else ""), flush=True
    )
    if not FAKETIME.exists():
        raise HarnessFailed(f"{FAKETIME} is missing: apt-get install libfaketime")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="idemwatch-faults-"))
    try:
        with open_site(folder) as site:
            try:
                return Run(asked, site, stop).run()
            finally:
                stop.set()
    finally:
        _progress("")
        if asked.logs:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (HarnessFailed, ProcessFailed) as failure:
        print(f"the harness failed, nothing is known of the guarantee: {failure}", file=sys.stderr)
        sys.exit(3)
    except (KeyboardInterrupt, Stopped):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
