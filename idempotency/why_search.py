"""From a key, its beginning, a message's id or a call, to all that is told of it.

Invariant: it reads, and changes nothing; errors name arguments, never their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from .errors import ConfigurationError, IdempotencyError
from .keys import readable
from .printing import printable
from .record import Record, State
from .settings import Settings
from .why import Asked, Seen, Why, explain
from .why_arguments import difference, differing
from .why_others import NOTE, of_other
from .why_store import MOST, Keys, Reader
from .why_view import Report

if TYPE_CHECKING:
    from .task import IdempotentTask
    from .why_call import Called

NEEDS_APP: Final = "needs your app: celery -A proj idemwatch keys why"
_CUTS: Final = 3
"""How often an unknown key is shortened to find its neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options that say which call is meant."""

    key: str | None
    task: str | None
    task_id: str
    args: list[Any]
    kwargs: dict[str, Any]
    than_args: list[Any] | None
    than_kwargs: dict[str, Any] | None
    headers: tuple[str, ...]

    def __post_init__(self) -> None:
        others = self.args or self.kwargs or self.headers or self.compares
        if self.key is not None and (self.task or self.task_id or others):
            raise click.UsageError("a KEY is all: no --task, --task-id or arguments beside it")
        if self.key is None and not self.task and not self.task_id:
            raise click.UsageError("say KEY, --task NAME with --args and --kwargs, or --task-id ID")
        if self.key is not None and not self.key.strip():
            raise click.UsageError("KEY is empty")
        if not self.task and (self.args or self.kwargs):
            raise click.UsageError("--args and --kwargs need --task NAME")

    @property
    def compares(self) -> bool:
        """Whether another call is given to compare with."""
        return self.than_args is not None or self.than_kwargs is not None

    def header_map(self) -> dict[str, str]:
        """Headers by name; those that the key covers are without the prefix too."""
        found = {}
        for one in self.headers:
            name, equals, value = one.partition("=")
            if not equals or not name:
                raise click.UsageError("--header is NAME=VALUE, as idempotency_user_id=7")
            found[name] = value
        return found


class Search:
    """From what was given to what is told."""

    def __init__(self, reader: Reader, settings: Settings, app: Any | None, given: Given) -> None:
        self._reader, self._settings, self._app, self._given = reader, settings, app, given
        self._called: Called | None = None
        self._message = ""

    def report(self) -> Report:
        """Raises ClickException, with exit code 1, when there is nothing to tell of."""
        key = self._key()
        seen = self._reader.seen(key)
        if not any(one.found or one.problem for one in seen):
            key, seen = self._shortened(key)
        task = self._task(seen)
        answer = _of_other(key, seen) or explain(self._asked(key, task), seen)
        record = answer.record
        held = record is not None and record.state is State.RUNNING
        entry = self._reader.entry(key)
        return Report(
            key=key,
            message=self._message,
            why=answer,
            now_us=next((o.found.now_us for o in seen if o.found and o.place == answer.place), 0),
            arguments=() if record is None else tuple(self._arguments(record)),
            worker=self._worker(record.task_id) if held and record else None,
            hits=None if entry is None else entry.hit_count,
            region="" if entry is None else entry.region,
            others=_not_read(seen, answer),
        )

    # -- which key ---------------------------------------------------------------------------

    def _key(self) -> str:
        given = self._given
        if given.key is not None:
            return readable(self._reader.bare(given.key))
        if given.task:
            self._called = self._call(given.task, given.args, given.kwargs)
            return self._called.call.key
        return self._by_task_id(given.task_id)

    def _call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Called:
        from .why_call import called, task_of

        headers, task_id = self._given.header_map(), self._given.task_id
        try:
            return called(task_of(self._app, name), args, kwargs, task_id=task_id, headers=headers)
        except TypeError as error:
            raise click.UsageError(f"the call does not fit {name}: {error}") from None

    def _by_task_id(self, task_id: str) -> str:
        found = self._reader.of_task_id(task_id)
        if len(found.names) > 1:
            raise click.ClickException(_ambiguous(f"task id {task_id} stands in", found))
        told = "" if found.names or self._app is None else self._by_message(task_id)
        if not found.names and not told:
            raise click.ClickException(_unknown_id(task_id, found, self._app))
        return found.names[0] if found.names else told

    def _by_message(self, task_id: str) -> str:
        """The key of a message that no record names: a worker has it, or it was refused."""
        from .why_call import kept_by_backend, message_of

        message = message_of(self._app, task_id)
        key = kind = ""
        if message is None:
            key, kind, message = kept_by_backend(self._app, task_id)
            self._message = f"task id {task_id} was refused with {kind}" if kind else ""
        else:
            self._message = f"task id {task_id} is at {message.worker} ({message.state})"
        if message is not None:
            with suppress(IdempotencyError, click.UsageError):
                call = self._call(message.task, message.args, message.kwargs)
                if key in ("", call.call.key):
                    self._called, key = call, call.call.key
        return key

    def _shortened(self, key: str) -> tuple[str, list[Seen]]:
        """The one key that begins as KEY does. Raises ClickException."""
        told = f"no record of {key}: its work may be done{self._published(key)}"
        if self._given.key is None:
            raise click.ClickException(told)
        found = self._reader.beginning(key)
        if len(found.names) == 1:
            return found.names[0], self._reader.seen(found.names[0])
        if found.names:
            raise click.ClickException(_ambiguous(f"{key} is how", found, "begin"))
        near = self._near(key)
        hint = f"; near it: {printable(', '.join(near[:5]))}" if near else ""
        raise click.ClickException(told + hint + _problems(found))

    def _published(self, key: str) -> str:
        """What a publisher noted of the call: until it runs there is no record."""
        note = _of_other(f"{NOTE}{key}", self._reader.seen(f"{NOTE}{key}"))
        return "" if note is None or note.verdict == "over" else f"; {note.told[0]}"

    def _near(self, key: str) -> tuple[str, ...]:
        head = key
        for _ in range(_CUTS):
            head = head.rstrip(":").rpartition(":")[0]
            if not head:
                return ()
            if found := self._reader.beginning(f"{head}:").names:
                return found
        return ()

    # -- what is known of it -----------------------------------------------------------------

    def _task(self, seen: Sequence[Seen]) -> IdempotentTask | None:
        """The task of the call, else the one that the record names, if the app has it."""
        if self._called is not None:
            return self._called.task
        names = [one.found.record.endpoint for one in seen if one.found is not None]
        if self._app is None or not names:
            return None
        from .why_call import task_of

        try:
            return task_of(self._app, names[0])
        except ConfigurationError:
            return None

    def _asked(self, key: str, task: IdempotentTask | None) -> Asked:
        options = self._settings if task is None else task.idempotency_options
        call = self._called
        return Asked(
            key=key,
            authority=None if task is None else options.authority,
            fingerprint=None if call is None else call.call.fingerprint,
            task_id=self._given.task_id,
            max_crashes=options.max_crashes,
            lease=options.lease,
            on_duplicate=options.on_duplicate,
            on_running=options.on_running,
            when_unavailable=options.when_unavailable,
            enabled=options.enabled,
        )

    def _worker(self, task_id: str) -> str | None:
        if self._app is None or not task_id:
            return None
        from .why_call import message_of

        message = message_of(self._app, task_id)
        return "" if message is None else f"{message.worker} ({message.state})"

    def _arguments(self, record: Record) -> list[str]:
        call, given = self._called, self._given
        if call is None or not record.fingerprint:
            return []
        rule = call.task.idempotency_options.rule
        if not given.compares:
            return [difference(rule, record.fingerprint, call.bound).told()]
        other = self._call(call.task.name, given.than_args or [], given.than_kwargs or {})
        told = [difference(rule, record.fingerprint, call.bound, other.bound).told()]
        names = ", ".join(differing(call.bound, other.bound)) or "none"
        told.append(f"the two calls that you gave differ in: {names}")
        if other.call.key != call.call.key:
            told.append(
                f"they are different pieces of work: the other has the key {other.call.key}"
            )
        if other.call.fingerprint == record.fingerprint:
            told.append("the other call is the stored one")
        return told


def _of_other(key: str, seen: Sequence[Seen]) -> Why | None:
    """What is told of a record that is no call's."""
    for one in seen:
        if one.found is not None:
            return of_other(key, one.found.record, one.found.now_us, one.place)
    return None


def _not_read(seen: Sequence[Seen], answer: Why) -> tuple[str, ...]:
    problems = [o for o in seen if o.problem and o.place != answer.place]
    return tuple(f"{one.place} was not read: {one.problem}" for one in problems)


def _ambiguous(head: str, found: Keys, verb: str = "") -> str:
    shown = "".join(f"\n  {printable(name)}" for name in found.names[:MOST])
    number = f"{len(found.names)}" if len(found.names) <= MOST else f"more than {MOST}"
    words = f"{head} {number} keys{f' {verb}' if verb else ''}; say one of them:"
    return words + shown + _problems(found)


def _unknown_id(task_id: str, found: Keys, app: Any | None) -> str:
    told = f"no record names task id {task_id} as its holder, or as one that waits"
    if app is None:
        hint = f"; workers and the result backend were not asked, which {NEEDS_APP}"
    else:
        hint = (
            ", no worker that answered has its message, and the result backend keeps no refusal "
            "of it: if it was answered with another's result, say its call (--task, --args)"
        )
    return told + hint + _problems(found)


def _problems(found: Keys) -> str:
    return "".join(f"\n({problem})" for problem in found.problems)
