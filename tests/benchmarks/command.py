"""The command line of the benches."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from .catalogue import BENCHES
from .lab import Lab, Servers
from .measure import Measured
from .peers import missing
from .progress import Progress
from .report import FAILURES, read_results, show_table, verdict, write_results
from .waivers import WaiverError, read_waivers

FAILED: Final = 1
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    asked = _parser().parse_args(arguments)
    for name in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        del os.environ[name]  # it would be a setting of what is measured
    try:
        return _run(asked.only or _all(large=asked.large))
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def _all(*, large: bool) -> list[str]:
    return [name for name, bench in BENCHES.items() if bench.large == large]


def _run(chosen: Sequence[str]) -> int:
    if missing():
        return _say(f"not installed: {', '.join(missing())} (pip install --group bench)", FAILED)
    try:
        waivers = read_waivers(BENCHES)
        read_results()  # that it can be read shows now, not after ten minutes
    except (WaiverError, ValueError) as error:
        return _say(str(error), FAILED)
    _keep_to_one_cpu()
    measured = _measure(chosen)
    verdicts = {name: verdict(name, one, waivers) for name, one in measured.items()}
    write_results(measured)
    show_table(measured, verdicts)
    failed = [f"{name}: {judged}" for name, judged in verdicts.items() if judged in FAILURES]
    return _say(f"see waivers.toml: {', '.join(failed)}", FAILED) if failed else 0


def _keep_to_one_cpu() -> None:
    """Us, and all that we start: where the scheduler puts a server is not to be measured.

    To wake a process on another CPU of a virtual machine costs 30 µs or more, twice a round trip:
    a bare SET takes 45 µs on one CPU and 100 µs on two, and the scheduler wavers between them.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _measure(chosen: Sequence[str]) -> dict[str, Measured]:
    measured: dict[str, Measured] = {}
    progress = Progress(len(chosen))
    with Servers() as servers:
        for name in dict.fromkeys(chosen):
            bench = BENCHES[name]
            progress.begin(name)
            with Lab(servers, progress) as lab:
                measured[name] = bench.measure(lab)
            progress.finish(f"{bench.text(measured[name].value)}, goal {bench.goal:g}")
    return measured


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure beside a baseline and the peers."
    )
    parser.add_argument(
        "--only", action="append", choices=list(BENCHES), metavar="NAME", help="one bench, by name"
    )
    parser.add_argument(
        "--large", action="store_true", help="those that take minutes to prepare, and only those"
    )
    return parser
