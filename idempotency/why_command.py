"""`idemwatch keys why`: why a call was turned away, what a message for it would get now, and what
to do. Invariant: it reads, and changes nothing."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any, Final

import click

from .command_settings import Command, app_of, database_option, redis_option, settings_for
from .printing import print_text
from .why import UNKNOWN
from .why_search import NEEDS_APP, Given, Search
from .why_store import Reader
from .why_view import as_json, text


class _Json(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click
    """A JSON list or object; an error shows its place, and nothing of the text."""

    def __init__(self, kind: type, name: str) -> None:
        self._kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, self._kind):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            place = f" (character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
            self.fail(f"is not JSON{place}; example: {self.name}", param, ctx)
        except RecursionError:
            self.fail("is nested too deeply", param, ctx)
        if not isinstance(found, self._kind):
            self.fail(f"is JSON, but no {self.name}", param, ctx)
        from kombu.utils.json import loads  # dates and the like, in the form that messages have

        return loads(value)


ARGS: Final = _Json(list, 'list, as [7, "x"]')
KWARGS: Final = _Json(dict, 'object, as {"day": "2026-03-01"}')


@click.command("why", cls=Command)
@click.argument("key", required=False)
@click.option("--task", metavar="NAME", help="The call of this task of your app.")
@click.option("--args", type=ARGS, default="[]", metavar="JSON", help="Its arguments, a list.")
@click.option("--kwargs", type=KWARGS, default="{}", metavar="JSON", help="Those by name.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE",
    help="A header of its message that the key covers: idempotency_user_id, idempotency_device_id, "
    "idempotency_schedule, idempotency_due_at.",
)  # fmt: skip
@click.option(
    "--task-id", default="", metavar="ID",
    help="The message of this id. Alone: its record, or message, is looked for.",
)  # fmt: skip
@click.option("--than-args", type=ARGS, metavar="JSON", help="The other call, to compare with.")
@click.option("--than-kwargs", type=KWARGS, metavar="JSON", help="Its arguments by name.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@redis_option
@database_option
@click.pass_context
def why(
    ctx: click.Context, /, *, form: str, redis_url: str | None, database_url: str | None,
    **given: Any,
) -> None:  # fmt: skip
    """Tell why a call was turned away: what a message for it would get now, why, and what to do.

    KEY may be cut short, as long as one key alone begins so. Nothing is changed.

    \b
    By key, or its beginning, or the id of a message:
        idemwatch keys why autoclose:7:2026-03-01
        idemwatch keys why --task-id 9b1c7a52-5d1e-4c0b-9f57-1f2f5f0a6d3e
    By call; key and fingerprint are computed as a worker does it:
        celery -A proj idemwatch keys why --task jobs.remind --args '[7, "2026-03-01"]'
    Which argument differs from the call that came first:
        celery -A proj idemwatch keys why --task jobs.remind --args '[7, "2026-03-01"]' \\
            --than-args '[7, "2026-03-01", "trace-1"]'

    A record keeps one digest of all arguments, so they cannot be read back. What can be known:
    whether the call given is the stored one; with --than-args or --than-kwargs, which arguments
    were other in the stored call, if it is a mixture of the two; without them only the usual
    causes are tried (text for a number, left at its default, not there before a deploy), and
    otherwise those are named among which it must be. What is told is proved by the digest. Values
    of arguments are never shown.

    \b
    Exit codes: 0 told, 1 no such record (its work may be done), an ambiguous beginning, or the
    deciding store cannot be read, 2 wrong usage, 130 interrupted.
    """
    asked = Given(**given)
    settings, app = settings_for(ctx, redis_url=redis_url, database_url=database_url), app_of(ctx)
    if app is None and (asked.task or asked.compares):
        option = "--task" if asked.task else "--than-args"
        raise click.UsageError(f"{option} {NEEDS_APP}")
    with closing(Reader(settings)) as reader:
        report = Search(reader, settings, app, asked).report()
    print_text(f"{json.dumps(as_json(report), indent=2)}\n" if form == "json" else text(report))
    if report.why.verdict == UNKNOWN:
        ctx.exit(1)
