"""Schedules from crontab files, as Vixie cron and cronie read them.

A file does not tell its host's zone: times are those of CRON_TZ from its line on, and UTC before.
What cron passes over is a problem. So is a line that cron runs otherwise than it looks (a carriage
return, a command that is cut), but its schedule is read too.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final, NamedTuple

from idemwatch.idempotency.keys import digest

from .clock import zone_of
from .config import schedule_of
from .dialects import MACROS, VIXIE
from .errors import InvalidSchedule
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import Schedule
from .place import Place

FIELDS: Final = tuple(field.name for field in VIXIE.fields)
MACRO: Final = "expression"
LONGEST_COMMAND: Final = 999
"""Characters that Vixie cron runs of a command; cronie runs 131,071."""
LONGEST_TASK: Final = 200
_HEAD: Final = LONGEST_TASK - 40
_BOM: Final = "\ufeff"
_WORD: Final = re.compile(r"[^ \t]+")
_FOREIGN: Final = re.compile(r"\?|\bH\b", re.IGNORECASE)
_LIKE_A_FIELD: Final = re.compile(r"\*.*|[0-9?][0-9*?,/LW#-]*")
_NO_USER: Final = re.compile(r"""[-./~$'"].*|.*[/=:;|&<>()].*""")
_NAME: Final = re.compile(r"""(?:"([^"=]*)"|'([^'=]*)'|((?!["'])[^\s=]*))\s*=\s*""", re.ASCII)
_BLANKS: Final = " \t\n\r\f\v"
_ESCAPED: Final = re.compile(r"\\.|%", re.DOTALL)


def read_user_crontab(path: str, text: str) -> Inventory:
    """The schedules of a user's crontab, as `crontab -l` prints it."""
    return _Reader(path, system=False).read(text)


def read_system_crontab(path: str, text: str) -> Inventory:
    """The schedules of /etc/crontab or a file of /etc/cron.d: a user stands before the command."""
    return _Reader(path, system=True).read(text)


class _Reader:
    def __init__(self, path: str, *, system: bool) -> None:
        self.path, self.name, self.system = path, PurePath(path).name or path, system
        self.zone = "UTC"
        self.schedules: list[Schedule] = []
        self.problems: list[Problem] = []
        self.doubts: list[Problem] = []
        self.returns: list[Place] = []

    def read(self, text: str) -> Inventory:
        if text.startswith(_BOM):
            self._doubt(Place(self.path, 1, 1), "cron takes its byte order mark for a part of it")
        *lines, rest = text.removeprefix(_BOM).split("\n")
        for number, line in enumerate(lines, 1):
            self._line(number, line)
        self._unfinished(len(lines) + 1, rest)
        self._tell_returns()
        for told in (self.problems, self.doubts):
            told.sort(key=lambda one: one.place)
        return inventory_of(self.path, self.schedules, self.problems, self.doubts)

    def _tell(self, place: Place, message: str) -> None:
        self.problems.append(Problem(place, message, f"{self.name}:{place.line}"))

    def _doubt(self, place: Place, message: str) -> None:
        self.doubts.append(Problem(place, message, f"{self.name}:{place.line}"))

    def _unfinished(self, number: int, line: str) -> None:
        if start := _start(line):
            place = Place(self.path, number, start)
            self._tell(place, "cron passes over a last line that does not end with a newline")

    def _tell_returns(self) -> None:
        if self.returns:
            told = f"its carriage return (of lines in all: {len(self.returns)}) is a part of the "
            self._doubt(self.returns[0], f"{told}command to cron: save it with Unix line ends")

    def _line(self, number: int, given: str) -> None:
        line = given.removesuffix("\r")
        start = _start(line)
        if not start:
            return
        place = Place(self.path, number, start)
        if "\0" in line:
            self._tell(place._replace(column=line.index("\0") + 1), "it has a NUL byte")
        elif setting := _setting(line, start - 1):
            self._set(place, setting)
        elif self._entry(place, line) and line != given:
            self.returns.append(place._replace(column=len(given)))

    def _set(self, place: Place, setting: _Setting) -> None:
        if setting.name != "CRON_TZ":
            return
        self.zone = "UTC"  # which the C library takes an unknown zone for
        try:
            zone_of(setting.value.removeprefix(":"))
        except InvalidSchedule as error:
            self._tell(place._replace(column=setting.column), f"CRON_TZ: {error}; UTC is used")
        else:
            self.zone = setting.value.removeprefix(":") or "UTC"

    def _entry(self, place: Place, line: str) -> bool:
        """Whether the line is a schedule."""
        words = _words(line, place.column - 1, system=self.system)
        columns = {part: word.start() + 1 for part, word in words.items()}
        label = f"{self.name}:{place.line}"
        try:
            self._add(place, label, words, line)
        except InvalidSchedule as error:
            at = place._replace(column=columns.get(error.part, place.column))
            self.problems.append(problem_of(error, at, label))
            return False
        return True

    def _add(self, place: Place, label: str, words: dict[str, re.Match[str]], line: str) -> None:
        expression = _expression(words, system=self.system)
        command, given = _command(line[words["command"].start() :])
        if not command:
            raise InvalidSchedule(
                expression, "command", "it is empty: write \\% for a percent sign"
            )
        extras = {"user": words["user"][0]} if self.system else {}
        if given:
            extras["stdin"] = _short(given)
        config = {"identifier": label, "cron_expression": expression, "timezone": self.zone,
                  "task": _short(command), "kwargs": extras}  # fmt: skip
        self.schedules.append(schedule_of(config, place=place))
        length = len(line) - words["command"].start()
        if length > LONGEST_COMMAND:
            at = place._replace(column=words["command"].start() + 1)
            told = f"Vixie cron cuts its command of {length} characters after {LONGEST_COMMAND}"
            self._doubt(at, told)


def _start(line: str) -> int:
    """The column of a line's first character that counts; 0 for a blank line or a comment."""
    rest = line.lstrip(" \t")
    return 0 if rest in ("", "\r") or rest.startswith("#") else len(line) - len(rest) + 1


class _Setting(NamedTuple):
    name: str
    value: str
    column: int


def _setting(line: str, start: int) -> _Setting | None:
    """A line that sets a variable, as cronie's load_env has it; an empty value needs quotes."""
    found = _NAME.match(line, start)
    if found is None:
        return None
    name = next(group for group in found.groups() if group is not None)
    value = line[found.end() :].rstrip(_BLANKS)
    if value[:1] in ("'", '"'):
        quote, value = value[0], value[1:]
        if value.find(quote) != len(value) - 1 or not value:
            return None
        return _Setting(name, value[:-1], found.end() + 1)
    return _Setting(name, value, found.end() + 1) if value else None


def _words(line: str, start: int, *, system: bool) -> dict[str, re.Match[str]]:
    """The words of a line by what they are; `command` is its first word."""
    if line.startswith("-", start) and line[start + 1 : start + 2] not in ("", " ", "\t"):
        start += 1  # of cronie: its runs are not logged
    times = (MACRO,) if line.startswith("@", start) else FIELDS
    parts = (*times, "user", "command") if system else (*times, "command")
    return dict(zip(parts, _WORD.finditer(line, start), strict=False))


def _expression(words: dict[str, re.Match[str]], *, system: bool) -> str:
    """The expression of a line that has all its parts. Raises InvalidSchedule."""
    fields = {part: word[0] for part, word in words.items() if part in (*FIELDS, MACRO)}
    text = " ".join(fields.values())
    for part, field in fields.items():
        if problem := _foreign(part, field):
            raise InvalidSchedule(text, part, problem)
    if MACRO not in fields and len(fields) < len(FIELDS):
        names = " ".join(name.replace(" ", "-") for name in FIELDS)
        told = f"it has {len(fields)} of cron's five fields: {names}"
        raise InvalidSchedule(text, MACRO, told)
    after = "user" if system else "command"
    if after in words and (problem := _misplaced(words[after][0], system=system)):
        raise InvalidSchedule(text, after, problem)
    if "command" not in words:
        told = "a user and a command must follow" if system else "no command follows"
        raise InvalidSchedule(text, "command", told)
    return text


def _foreign(part: str, field: str) -> str | None:
    """Why cron does not know a field that parse_cron knows of its relatives."""
    if part == MACRO:
        known = f"cron knows {', '.join(MACROS)}, in lower case"
        return None if field in (*MACROS, "@reboot") else known
    found = _FOREIGN.search(field)
    return f"{found[0]!r} is of other crons" if found else None


def _misplaced(word: str, *, system: bool) -> str | None:
    """Why the word after the fields is none that belongs there."""
    shown = word if len(word) <= 40 else f"{word[:37]}..."
    if _LIKE_A_FIELD.fullmatch(word):
        return f'{shown!r} is a sixth field; seconds and years are of dialect "quartz"'
    if system and _NO_USER.fullmatch(word):
        return f"{shown!r} is no user; a line without one is of a user's crontab (crontab:FILE)"
    return None


def _command(text: str) -> tuple[str, str]:
    """What is run, and its standard input, which an unescaped % begins."""
    percents = (found.start() for found in _ESCAPED.finditer(text) if found[0] == "%")
    end = next(percents, len(text))
    return _unescaped(text[:end]).strip(), _unescaped(text[end + 1 :])


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: "%" if found[0] == r"\%" else found[0], text)


def _short(text: str) -> str:
    """A text of at most 200 characters; of a longer one its head and its digest, so that two such
    stay two."""
    if len(text) <= LONGEST_TASK:
        return text
    return f"{text[:_HEAD]}... {digest(text.encode('utf-8', 'surrogatepass'))}"
