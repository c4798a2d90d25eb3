"""The command line of the soak, and its course."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.purge_store import purge
from support.exporters import Series

from .load import Load
from .samples import Sampler
from .stage import Stage, open_stage
from .verdict import Total, Trend, totals, trends

RESULTS: Final = Path(__file__).with_name("results.json")
SEED: Final = 20261125
INTERRUPTED: Final = 130
SAMPLES: Final = 360
SAMPLES_TOLD: Final = 60
PAUSE_SECONDS: Final = 0.05
END_SECONDS: Final = 180.0
"""Within so long all that was published must be done."""
LONGEST_TTL_SECONDS: Final = 120.0
SHORTEST_TTL_SECONDS: Final = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code: 1 when something grew, or a total is not exact."""
    asked = _parser().parse_args(arguments)
    try:
        report = soak(asked.minutes * 60, asked.seed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if asked.json is not None:
        asked.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    print(report.text())
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=30.0,
        help="how long the load lasts, from 0.5",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="what is published, by chance")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are written")
    return parser


def _minutes(text: str) -> float:
    """Enough for a trend, at most a day."""
    number = float(text)
    if not 0.5 <= number <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text}: from 0.5 to 1440 minutes")
    return number


@dataclass(frozen=True)
class Report:
    """What a soak found."""

    seconds: float
    messages: int
    series: list[Trend]
    counts: list[Total]
    samples: list[dict[str, float]]

    @property
    def passed(self) -> bool:
        """Whether nothing grew and all totals are exact."""
        return all(one.flat for one in self.series) and all(one.exact for one in self.counts)

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "seconds": round(self.seconds),
            "messages": self.messages,
            "passed": self.passed,
            "series": {
                one.name: {
                    "median": round(one.middle, 2),
                    "most": round(one.most, 2),
                    "growth": round(one.growth, 2),
                    "flat": one.flat,
                }
                for one in self.series
            },
            "totals": {
                one.what: {"expected": one.expected, "found": one.found} for one in self.counts
            },
            "samples": [
                {name: round(value, 2) for name, value in one.items()}
                for one in self.samples[:: max(1, len(self.samples) // SAMPLES_TOLD)]
            ],
        }

    def text(self) -> str:
        """Two short tables and the verdict."""
        rate = self.messages / self.seconds
        lines = [f"{self.messages:,} messages in {self.seconds:.0f} s, {rate:.0f} a second", ""]
        lines += [f"{'after the warm-up':<28}{'median':>10}{'most':>10}{'growth':>10}"]
        lines += [_trend_line(one) for one in self.series]
        lines += ["", f"{'total':<28}{'expected':>10}{'found':>10}"]
        lines += [_total_line(one) for one in self.counts]
        return "\n".join([*lines, "", "passed" if self.passed else "FAILED"])


def _trend_line(one: Trend) -> str:
    told = "" if one.limit is None else "  flat" if one.flat else "  GROWS"
    return f"{one.name:<28}{one.middle:>10.1f}{one.most:>10.1f}{one.growth:>+10.2f}{told}"


def _total_line(one: Total) -> str:
    return f"{one.what:<28}{one.expected:>10}{one.found:>10}{'' if one.exact else '  WRONG'}"


def soak(seconds: float, seed: int = SEED) -> Report:
    """Load for so long, then wait until all is done, count and judge."""
    ttl = min(LONGEST_TTL_SECONDS, max(SHORTEST_TTL_SECONDS, seconds / 10))
    with open_stage(ttl) as stage, closing(Load(stage.broker, seed, ttl / 4)) as load:
        with closing(Sampler(stage)) as sampler:
            began = time.monotonic()
            samples = _run(stage, load, sampler, seconds)
            _end(stage, load)
            spent = time.monotonic() - began
        counts = _totals(stage, load)
    return Report(spent, load.messages.total(), trends(samples), counts, samples)


def _run(stage: Stage, load: Load, sampler: Sampler, seconds: float) -> list[dict[str, float]]:
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    every = seconds / SAMPLES
    with closing(PostgresLink(stage.database_url)) as link:
        while (gone := time.monotonic() - began) < seconds:
            if gone >= len(samples) * every:
                samples.append(sampler.look())
                sum(purge(link))
                _say(gone, seconds, load)
            if load.keep_full():
                time.sleep(PAUSE_SECONDS)
            assert stage.running(), "a worker has ended"
    return samples


def _say(gone: float, seconds: float, load: Load) -> None:
    told = f"{gone / seconds:4.0%}  {load.messages.total():,} messages"
    live = sys.stderr.isatty()
    print(
        f"\r\x1b[K{told}" if live else told, end="" if live else "\n", file=sys.stderr, flush=True
    )


def _end(stage: Stage, load: Load) -> None:
    load.finish()
    deadline = time.monotonic() + END_SECONDS
    while load.waiting():
        assert time.monotonic() < deadline, f"{load.waiting()} messages are not done"
        time.sleep(PAUSE_SECONDS)


def _totals(stage: Stage, load: Load) -> list[Total]:
    claims: dict[str, Counter[str]] = {}
    for client in stage.scraped.values():
        _add_claims(claims, client.series())
    with psycopg.connect(stage.database_url) as connection:
        rows = connection.execute(
            "SELECT kind, count(*), count(DISTINCT number) FROM effect GROUP BY kind"
        ).fetchall()
        counted = connection.execute("SELECT sum(value) FROM counter").fetchone()
    effects = {kind: (done, distinct) for kind, done, distinct in rows}
    assert counted is not None
    return totals(load.works, load.messages, effects, claims, int(counted[0]))


def _add_claims(claims: dict[str, Counter[str]], found: Series) -> None:
    for (name, labels), value in found.items():
        if name == "idemwatch_claims_total":
            told = dict(labels)
            claims.setdefault(told["task"], Counter())[told["outcome"]] += int(value)
