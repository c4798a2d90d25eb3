"""The arguments of a task: which may not have a stable form in a key, or change by themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .task_classes import Tree
from .task_effect_rules import clock_of
from .task_model import Finding, Found, Level
from .task_names import Names

REFUSED: Final = {
    **dict.fromkeys(("IO", "TextIO", "BinaryIO", "TextIOWrapper", "BufferedReader"), "a file"),
    **dict.fromkeys(("File", "UploadedFile", "InMemoryUploadedFile", "FileStorage"), "a file"),
    **dict.fromkeys(("HttpRequest", "Request", "WSGIRequest"), "a request"),
    **dict.fromkeys(("Callable", "FunctionType", "Iterator", "Generator", "Lock"), "code or state"),
    **dict.fromkeys(("QuerySet", "Model", "Session", "Connection", "Cursor"), "a database object"),
    "object": "any object",
    "datetime": "a datetime, which is refused unless it has a time zone",
}
"""Annotations of what has no canonical form (see encoding.py), by their last names."""
KNOWN: Final = frozenset(
    (
        *("int", "str", "bool", "float", "bytes", "Decimal", "date", "time", "timedelta", "UUID"),
        *("list", "List", "tuple", "Tuple", "dict", "Dict", "set", "Set", "frozenset", "FrozenSet"),
        *("Mapping", "Sequence", "Iterable", "Collection", "Any", "Optional", "Union", "None"),
        *("Literal", "Enum", "bytearray", "MutableMapping", "Annotated", "self", "Self"),
    )
)
_TRACE: Final = re.compile(r"^(trace|trace_id|traceparent|tracestate|span|span_id)$")
PERIOD: Final = re.compile(
    r"(^|_)(day|date|month|week|year|hour|period|since|until|version|revision|etag)$"
)
"""Names of arguments that tell one piece of work from the same a day later."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. `types` are the last names in its annotation."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    keyword_only: bool = False

    @property
    def required(self) -> bool:
        return self.default is None

    @property
    def types(self) -> set[str]:
        node = self.annotation
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return set()
        return set(_type_names(node)) if node is not None else set()

    @property
    def may_be_none(self) -> bool:
        none = isinstance(self.default, ast.Constant) and self.default.value is None
        return none or bool({"Optional", "None"} & self.types)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a message carries; `variable`: with `*args` or `**kwargs`."""

    parameters: tuple[Parameter, ...]
    variable: bool

    def get(self, name: str) -> Parameter | None:
        return next((one for one in self.parameters if one.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.parameters)

    @property
    def traces(self) -> tuple[str, ...]:
        """Arguments that differ between duplicates, and say nothing of the work."""
        return tuple(one.name for one in self.parameters if _TRACE.match(one.name))

    @property
    def has_period(self) -> bool:
        """Whether each call names a period: one that may be left out tells nothing."""
        return any(
            PERIOD.search(one.name) or "date" in one.types
            for one in self.parameters
            if one.required and not one.may_be_none
        )


def signature_of(found: Found) -> Signature:
    """The arguments of the task, without `self`."""
    if found.run is None:
        return Signature((), False)
    arguments = found.run.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, [*missing, *arguments.defaults], strict=True))
    first = 1 if found.bound and positional else 0
    told = [Parameter(one.arg, one.annotation, default) for one, default in pairs[first:]]
    told += [
        Parameter(one.arg, one.annotation, default, keyword_only=True)
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature(tuple(told), bool(arguments.vararg or arguments.kwarg))


def _type_names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name():
            yield node.id
        case ast.Attribute():
            yield node.attr
        case ast.Constant(value=None):
            yield "None"
        case ast.Constant(value=str() as text):
            yield text.rsplit(".", 1)[-1]
        case ast.Subscript(value=ast.Name(id="Literal")):
            yield "Literal"
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _type_names(child)


def argument_findings(
    found: Found, signature: Signature, names: Names, tree: Tree
) -> Iterator[Finding]:
    """What is wrong with the arguments as parts of a key; an error blocks the migration."""
    for one in signature.parameters:
        line = (one.annotation or one.default or found.node).lineno
        if not _is_true(found.options.get("pydantic")):
            yield from _annotation(one, line, names, tree)
        if one.default is not None:
            yield from _default(one, one.default, names)


def _annotation(one: Parameter, line: int, names: Names, tree: Tree) -> Iterator[Finding]:
    for name in sorted(one.types - KNOWN):
        if name in REFUSED or name in tree.models or ".models." in names.imported.get(name, ""):
            what = REFUSED.get(name, "a model")
            better = "a date, or text" if name == "datetime" else "its id"
            yield Finding(
                "unencodable-argument", Level.ERROR,
                f"argument {one.name} is {what}: a key cannot be made of it; pass {better} instead",
                line,
            )  # fmt: skip
        elif not _plain_class(name, names):
            yield Finding(
                "unknown-argument", Level.NOTE,
                f"argument {one.name} is a {name}: make sure that it arrives as a plain value, an "
                "Enum or a dataclass", line,
            )  # fmt: skip


def _plain_class(name: str, names: Names) -> bool:
    """Whether a class of this module is an Enum, a TypedDict, a dataclass or a NewType."""
    if name in names.assigned:
        return True
    node = names.classes.get(name)
    if node is None:
        return False
    bases = {names.full(base).rsplit(".", 1)[-1] for base in node.bases}
    decorated = {names.full(one).rsplit(".", 1)[-1] for one in node.decorator_list}
    plain = {"Enum", "StrEnum", "IntEnum", "TypedDict", "NamedTuple", "str", "int"}
    return bool(bases & plain) or "dataclass" in decorated


def _default(one: Parameter, default: ast.expr, names: Names) -> Iterator[Finding]:
    line = default.lineno
    value = names.assigned.get(default.id, default) if isinstance(default, ast.Name) else default
    called = names.full(value.func) if isinstance(value, ast.Call) else ""
    if called and clock_of(called):
        yield Finding(
            "changing-default", Level.ERROR,
            f"argument {one.name} has the default {_shown(default)}, which is computed once, when "
            "the worker starts; pass it with each call", line,
        )  # fmt: skip
    elif problem := _unstable(value, called):
        yield Finding(
            "unencodable-argument", Level.ERROR,
            f"argument {one.name} has the default {_shown(default)}, {problem}: a key cannot be "
            "made of it; use None", line,
        )  # fmt: skip
    elif isinstance(value, ast.List | ast.Dict | ast.Set) or called in ("list", "dict", "set"):
        yield Finding(
            "mutable-default", Level.WARNING,
            f"argument {one.name} has a default that can be changed, {_shown(default)}: a run that "
            "changes it changes the key of those that come after it; use None", line,
        )  # fmt: skip


def _unstable(value: ast.expr, called: str) -> str:
    if isinstance(value, ast.Lambda):
        return "a function"
    if called in ("object", "open", "threading.Lock", "io.StringIO", "io.BytesIO"):
        return "an object"
    if called == "float" and "nan" in ast.unparse(value).lower():
        return "NaN, which does not equal itself"
    if isinstance(value, ast.Attribute) and value.attr.lower() == "nan":
        return "NaN, which does not equal itself"
    if called == "datetime.datetime":
        aware = isinstance(value, ast.Call) and any(one.arg == "tzinfo" for one in value.keywords)
        return "" if aware else "a datetime without a time zone"
    return ""


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_coroutine(found: Found) -> bool:
    """Whether a call of the task's function does no work yet: async, or a generator."""
    run = found.run
    if run is None or isinstance(run, ast.AsyncFunctionDef):
        return run is not None
    return any(_yields(statement) for statement in run.body)


def _yields(node: ast.AST) -> bool:
    if isinstance(node, ast.Yield | ast.YieldFrom):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return False
    return any(_yields(child) for child in ast.iter_child_nodes(node))


def asked_for(found: Found, name: str) -> bool:
    """Whether the task asks if an argument was given, so that it may be None."""
    return any(_asks(node, name) for node in ast.walk(found.run)) if found.run else False


def _asks(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Compare(left=ast.Name(id=left), ops=[ast.Is() | ast.IsNot()]):
            return left == name
        case ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=operand)):
            return operand == name
        case ast.If(test=ast.Name(id=test)) | ast.IfExp(test=ast.Name(id=test)):
            return test == name
        case ast.BoolOp(values=values):
            return any(isinstance(one, ast.Name) and one.id == name for one in values)
        case _:
            return False
