"""Runbooks: one for each alert, whose commands, queries and silences are real.

That its metrics exist is in test_metric_contract.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from idemwatch.alerts.rule import Alert, Build
from idemwatch.alerts.rule_files import ALERTS as ALERTS_FILE
from idemwatch.alerts.rule_files import rule_groups
from idemwatch.exporter.cli import cli
from idemwatch.idempotency.postgres_link import PostgresLink
from support.alerting import ALERTS, RUNBOOKS, Alertmanager, run, running_alertmanager
from support.stores import wait_until

SECTIONS = [
    "What it means",
    "What users feel",
    "First look",
    "Repair",
    "When to wake someone",
    "Silence",
]
BOOKS = sorted(RUNBOOKS.glob("*.md"))
SEVERITIES = {
    rule.name: rule.severity
    for group in rule_groups(Build())[ALERTS_FILE]
    for rule in group.rules
    if isinstance(rule, Alert)
}
MOST_LINES = 120
"""What is read at 3 a.m. is short."""
every_book = pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)


def _blocks(book: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", book.read_text(), re.DOTALL)


def _commands(book: Path) -> list[str]:
    """Every command of ours that it names, in a block or in a sentence."""
    found = re.findall(
        r"(?:(?<=`)|(?<=\$ ))(?:celery -A proj )?idemwatch [^`\n]+", book.read_text()
    )
    return [one.removeprefix("celery -A proj ") for one in found]


def test_every_alert_has_a_runbook_and_no_other_is_there() -> None:
    assert {book.stem for book in BOOKS} == set(SEVERITIES)


@every_book
def test_it_has_all_sections_in_order_and_is_short(book: Path) -> None:
    text = book.read_text()
    assert text.startswith(f"# {book.stem}\n\nSeverity: {SEVERITIES[book.stem]}")
    sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert sections[1::2] == SECTIONS
    assert all(part.strip() for part in sections[2::2])
    assert len(text.splitlines()) < MOST_LINES


@every_book
def test_other_alerts_that_it_names_exist(book: Path) -> None:
    for name in re.findall(r"\b(?:see|in|See|as) ([A-Z][a-z]+[A-Z]\w+)\b", book.read_text()):
        assert name in SEVERITIES, name


@every_book
def test_its_first_look_has_a_query_or_a_command(book: Path) -> None:
    look = book.read_text().split("## First look\n")[1].split("## Repair")[0]
    assert "```promql" in look or "```console" in look


@every_book
def test_its_commands_exist_with_their_options(book: Path) -> None:
    for command in _commands(book):
        words = [re.sub(r"[.,;:]$", "", word) for word in shlex.split(command)[1:]]
        _check(words, command)


def _check(words: list[str], command: str) -> None:
    """Follow the words down the groups; what is left must be options and arguments that parse."""
    at: click.Command = cli
    context = click.Context(cli, info_name="idemwatch", **cli.context_settings)
    while isinstance(at, click.Group):
        assert words, command
        below = at.get_command(context, words[0])
        assert below is not None, command
        at, words = below, words[1:]
        context = click.Context(at, parent=context, info_name=at.name)
    if words == ["--help"]:
        return
    words = ["7" if word == "ID" else word for word in words]
    at.make_parser(context)
    at.parse_args(context, words)


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    for words in (["keys", "lost"], ["keys", "list", "--colour", "red"], ["keys", "show"]):
        with pytest.raises((AssertionError, click.UsageError)):
            _check(words, "wrong")
    assert CliRunner().invoke(cli, ["keys", "lost"]).exit_code == 2


def test_its_queries_parse(tmp_path: Path) -> None:
    queries = [block.strip() for book in BOOKS for block in _blocks(book, "promql")]
    rules = [{"record": f"query:number:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    assert f"{len(queries)} rules found" in run("promtool", "check", "rules", path)


def test_its_sql_is_of_tables_that_there_are(link: PostgresLink) -> None:
    statements = [(book.stem, block) for book in BOOKS for block in _blocks(book, "sql")]
    assert {name for name, _ in statements} == {"BeatStalled", "ScheduleOverdue"}
    for _, statement in statements:
        with link.connection() as connection:
            connection.execute(f"EXPLAIN {statement}".encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """A real Alertmanager with the committed configuration."""
    folder = tmp_path_factory.mktemp("alertmanager")
    with running_alertmanager(ALERTS / "alertmanager.yml", folder) as running:
        yield running


@every_book
def test_its_silence_silences_it(server: Alertmanager, book: Path) -> None:
    line = re.search(r"^\$ (amtool silence add .+)$", book.read_text(), re.MULTILINE)
    assert line
    command = shlex.split(line[1].replace("http://localhost:9093", server.url))[1:]
    labels = {"alertname": book.stem, "severity": SEVERITIES[book.stem], "job": "j"}
    server.post(labels)
    silence = run("amtool", *command, "--author=tests").strip()
    try:
        wait_until(lambda: bool(server.status(**labels)))
        if book.stem == "Watchdog":  # never: it says that alerts arrive
            assert server.status(**labels)["silencedBy"] == []
        else:
            wait_until(lambda: silence in server.status(**labels)["silencedBy"])
    finally:
        run("amtool", "silence", "expire", f"--alertmanager.url={server.url}", silence)
