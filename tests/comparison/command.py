"""The command line of the comparison."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from benchmarks.peers import missing
from idemwatch.demo.processes import ProcessFailed
from idemwatch.idempotency.whole_file import replace_whole
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import costs, page, results
from .cases import CASES, Case
from .ground import Servers, Stopped, open_servers
from .seen import Seen
from .sites import Site
from .systems import SYSTEMS, System

FAILED: Final = 1
INTERRUPTED: Final = 130
LOG_CHARACTERS: Final = 2000
EPILOG: Final = """\
exit codes: 0 written; 1 idemwatch did not do what the page says of it, or something is missing
(nothing is written then); 2 wrong usage; 130 interrupted.

examples:
  make comparison                              all of it, some ten minutes
  make comparison ONLY=message_that_kills      one case, to look at; nothing is written
"""


class Broken(Exception):
    """A case could not be done; says which, with which system, and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; the exit code."""
    asked = _parser().parse_args(arguments)
    for name in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        del os.environ[name]  # it would be a setting of what is compared
    if asked.page:
        return _write_page(results.read())
    if missing():
        return _say(
            f"not installed: {', '.join(missing())}; `make comparison` installs them", FAILED
        )
    try:
        return _compare(asked.only)
    except KeyboardInterrupt:
        return _say("interrupted; nothing was written", INTERRUPTED)
    except (Broken, ProcessFailed, OSError) as error:
        return _say(f"{error}\nnothing was written", FAILED)


def _compare(only: Sequence[str] | None) -> int:
    chosen = [CASES[name] for name in only] if only else list(CASES.values())
    with _Bar(len(chosen) + (0 if only else len(costs.PEERED))) as bar:
        about, found = _run_cases(chosen, bar)
        judged = results.verdicts(found)
        against = list(results.contradictions(judged))
        if against:
            return _say("idemwatch did not do what it promises:\n" + "\n".join(against), FAILED)
        if only:
            return 0
        costed = costs.measure(bar.begin)
    run = {**about, "cases": found, "costs": costed}
    replace_whole(results.RESULTS, results.text(run).encode())
    return _write_page(run)


def _write_page(run: dict[str, Any]) -> int:
    replace_whole(page.PAGE, page.render(run).encode())
    return _say(f"{page.PAGE.relative_to(results.ROOT)} is written", 0)


class _Bar:
    """How far it is, on standard error, with a line for each case that is done."""

    def __init__(self, steps: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task("servers and workers", total=steps)
        self._begun = 0

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        """The next step begins; those before it are done."""
        self._progress.update(self._task, description=name, completed=self._begun)
        self._begun += 1

    def tell(self, case: Case, found: dict[str, Any]) -> None:
        """What was seen in a case."""
        judged = results.verdicts({case.name: found})[case.name]
        told = "; ".join(f"{system}: {verdict.text}" for system, verdict in judged.items())
        self.console.print(f"{case.name}: {told}", soft_wrap=True)


def _run_cases(chosen: Sequence[Case], bar: _Bar) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was run on, and what was seen."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="idemwatch-comparison-"))
        servers = stack.enter_context(open_servers(Path(folder)))
        about = {"machine": {**results.machine(), **_servers(servers)}}
        about["versions"] = results.versions()
        sites = [_open(stack, servers, number, one) for number, one in enumerate(SYSTEMS, 1)]
        found: dict[str, Any] = {}
        for fast in (False, True):
            found |= _run_group([one for one in chosen if one.fast is fast], sites, bar)
    return about, {case.name: found[case.name] for case in chosen}


def _open(stack: ExitStack, servers: Servers, number: int, system: System) -> Site:
    site = Site(system, servers, number)
    stack.callback(site.close)
    return site


def _servers(servers: Servers) -> dict[str, str]:
    with redis.Redis.from_url(servers.stores.url) as client:
        found = {"redis": client.info("server")["redis_version"]}
    with psycopg.connect(servers.postgres.url) as connection:
        number = str(connection.info.server_version)
    return {**found, "postgresql": f"{int(number[:-4])}.{int(number[-4:])}"}


def _run_group(cases: Sequence[Case], sites: Sequence[Site], bar: _Bar) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if cases:
        _on_all("start", sites, lambda site: site.start(fast=cases[0].fast))
    for case in cases:
        bar.begin(case.name)
        seen = _on_all(case.name, sites, case.run)
        found[case.name] = {name: results.as_plain(one) for name, one in seen.items()}
        bar.tell(case, found[case.name])
        _on_all(f"after {case.name}", sites, Site.clean)
    return found


def _on_all(what: str, sites: Sequence[Site], step: Any) -> dict[str, Seen]:
    """A step with all sites at the same time. Raises Broken; ends the others when interrupted."""
    with ThreadPoolExecutor(len(sites)) as pool:
        started = {site: pool.submit(step, site) for site in sites}
        try:
            wait(started.values())
        except KeyboardInterrupt:
            sites[0].interrupt()
            raise
    done: dict[str, Seen] = {}
    for site, future in started.items():
        try:
            done[site.system.name] = future.result()
        except Stopped:
            raise
        except Exception as error:  # whatever it was: which case and system is to be known
            told = f"{what}, {site.system.name}: {error!r}; its workers' log ends with:"
            raise Broken(f"{told}\n{site.log()[-LOG_CHARACTERS:]}") from error
    return done


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make comparison",
        description="Do each case with idemwatch and its peers, measure, and write"
        " docs/comparison.md.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(CASES),
        metavar="CASE",
        help=f"one case; nothing is written. One of: {', '.join(CASES)}",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write the page again from the last run's results.json: after a change of its words",
    )
    return parser
