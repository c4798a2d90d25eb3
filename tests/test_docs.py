"""docs/*.md as a whole: links lead somewhere, names are real, pages are short."""

from __future__ import annotations

import re

import click
import pytest
from idemwatch.exporter.cli import cli
from idemwatch.idempotency.options import OPTIONS
from idemwatch.idempotency.settings import NAMES
from support import pages
from support.pages import Page, page
from support.reader import blocks
from support.venv import ROOT

GENERATED = ("docs/metrics.md", "docs/comparison.md")
PAGES = [one for one in pages.pages() if one.name not in GENERATED]
ALL = [*PAGES, page("README.md")]
WORDS = 2400
"""What is read in ten minutes."""
NOT_OURS = {"idempotency_record", "idempotency_memory", "idempotency_key_of"}
"""Begins as a setting or option does: the table, the fixture, a method."""

each_page = pytest.mark.parametrize("one", PAGES, ids=lambda one: one.path.stem)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.path.stem)
def test_links_lead_to_pages_and_headings(one: Page) -> None:
    assert pages.broken_links(one) == []


@each_page
def test_it_is_read_in_ten_minutes(one: Page) -> None:
    assert len(one.prose.split()) < WORDS


@each_page
def test_tests_that_it_names_exist(one: Page) -> None:
    assert pages.missing_tests(one) == []


def test_every_page_is_reached_from_another_page() -> None:
    linked = {
        (one.path.parent / link.partition("#")[0]).resolve() for one in ALL for link in one.links
    }
    assert {one.path for one in PAGES} <= linked


def test_no_block_is_left_untried() -> None:
    followed = {
        "python": {"docs/guide.md", "docs/coming-from.md"},
        "console": {"docs/guide.md", "docs/operations.md", "docs/security.md"},
        "sql": {"docs/operations.md"},
    }
    for language, tried in followed.items():
        assert {one.name for one in PAGES if blocks(one.text, language)} == tried


# -- names -----------------------------------------------------------------------------------------


@each_page
def test_settings_and_options_that_it_names_exist(one: Page) -> None:
    named = set(re.findall(r"\b(idempotency_[a-z_]+)\b(?!\.)", one.text)) - NOT_OURS
    known = {f"idempotency_{name}" for name in NAMES | OPTIONS}
    headers = {f"idempotency_{name}" for name in ("user_id", "device_id", "schedule", "due_at")}
    assert named <= known | headers
    variables = set(re.findall(r"\bIDEMWATCH_([A-Z_]+?)(?:_FILE)?\b", one.text))
    assert {name.lower() for name in variables} <= NAMES


def command_lines(one: Page) -> list[list[str]]:
    """The commands of ours that it names, in code or in a block, as words."""
    code = re.findall(r"`([^`\n]+)`", one.text)
    block = [line.strip().removeprefix("$ ") for line in one.text.splitlines()]
    found = []
    for text in (*code, *block):
        match = re.match(r"(?:[A-Z_]+=\S+ )*(?:celery -A \w+ )?idemwatch ((?:[\w-]+ ?)+.*)", text)
        if match:
            found.append(match[1].split())
    return found


@each_page
def test_commands_and_their_options_exist(one: Page) -> None:
    for words in command_lines(one):
        command: click.Command = cli
        context = click.Context(command)
        rest = list(words)
        while isinstance(command, click.Group) and rest and rest[0].isascii():
            found = command.get_command(context, rest.pop(0).rstrip(","))
            assert found is not None, f"{one.name}: idemwatch {' '.join(words)}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= options | {"--help"}, f"{one.name}: idemwatch {' '.join(words)}"


def test_the_measure_sees_mistakes() -> None:
    wrong = Page(
        ROOT / "docs" / "wrong.md",
        "# A heading, `x`\n[a](nowhere.md) [b](#no-heading) [c](#a-heading-x) [d](../README.md)\n"
        "`idemwatch keys frob` tests/test_docs.py::test_none\n",
    )
    assert pages.broken_links(wrong) == ["nowhere.md", "#no-heading"]
    assert pages.missing_tests(wrong) == ["tests/test_docs.py::test_none"]
    assert command_lines(wrong) == [["keys", "frob"]]
