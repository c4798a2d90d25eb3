"""A YAML text as nodes with their places, for readers that look up a few keys.

Invariant: nothing is built of a tag, and an alias is the node that it names, never a copy, so what
would blow up when it is expanded never does. Documents, nodes, depth and aliases have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from idemwatch.idempotency.errors import ConfigurationError

MOST_DOCUMENTS: Final = 10_000
MOST_NODES: Final = 500_000
"""Of a document."""
MOST_ALIASES: Final = 1_000
DEEPEST: Final = 200
TEMPLATE: Final = "it is a Helm template: render it first (helm template)"
MERGE: Final = "<<"
_MARKER: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_QUOTE: Final = ("while scanning an alias", "while scanning for the next token")


class NodeError(ValueError):
    """What is wrong, and where: line and column from 1."""

    def __init__(self, line: int, column: int, problem: str) -> None:
        super().__init__(problem)
        self.line, self.column, self.problem = line, column, problem


@dataclass(slots=True, eq=False)
class Node:
    """A value. `text`: of a scalar; `plain`: without quotes; `children`: the items of a sequence,
    the keys and values of a mapping in turn."""

    kind: Literal["scalar", "mapping", "sequence"]
    line: int
    column: int
    text: str = ""
    plain: bool = False
    children: Sequence[Node] = ()
    _keys: dict[str, list[Node]] | None = None

    def wrong(self, problem: str) -> NodeError:
        return NodeError(self.line, self.column, problem)

    @property
    def null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def templated(self) -> bool:
        """Whether it is `{{ ... }}`, which YAML reads as a mapping whose key is a mapping."""
        if self.kind == "mapping":
            return bool(self.children) and self.children[0].kind == "mapping"
        return "{{" in self.text

    def find(self, key: str) -> Node | None:
        """The value of a key, or of a mapping that is merged in; None if it is none or null.

        Raises NodeError where a key is given twice.
        """
        for mapping in self._merged():
            values = mapping.keys().get(key, ())
            if len(values) > 1:
                raise values[1].wrong(f"{key} is given twice")
            if values:
                return None if values[0].null else values[0]
        return None

    def get(self, key: str) -> Node:
        """As `find`, of a key that must be there."""
        found = self.find(key)
        if found is None:
            raise self.wrong(f"it has no {key}")
        return found

    def text_of(self, key: str, default: str = "") -> str:
        """The scalar of a key, as it is written."""
        found = self.find(key)
        if found is None:
            return default
        if found.templated:
            raise found.wrong(TEMPLATE)
        if found.kind != "scalar":
            raise found.wrong(f"{key} must be a string")
        return found.text

    def _merged(self) -> Iterator[Node]:
        """Itself, and the mappings of its `<<`, each once: they may name each other."""
        waiting, seen = [self] if self.kind == "mapping" else [], set[int]()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.kind == "sequence":
                waiting += reversed(node.children)
            elif node.kind == "mapping":
                yield node
                waiting += reversed(node.keys().get(MERGE, ()))

    def keys(self) -> dict[str, list[Node]]:
        """The values of each scalar key of a mapping."""
        if self._keys is None:
            self._keys = {}
            for key, value in zip(self.children[::2], self.children[1::2], strict=True):
                if key.kind == "scalar":
                    self._keys.setdefault(key.text, []).append(value)
        return self._keys


def documents(path: str, text: str) -> Iterator[Node | NodeError]:
    """The documents of a text, apart: one that cannot be read does not hide those after it.

    Raises ConfigurationError without PyYAML.
    """
    yaml = _yaml(path)
    starts = [0, *(found.start() for found in _MARKER.finditer(text) if found.start())]
    line, count = 1, 0
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:end]
        if not _blank(part):
            count += 1
            if count > MOST_DOCUMENTS:
                yield NodeError(line, 1, f"over {MOST_DOCUMENTS} documents: split the file")
                return
            yield from _Builder(yaml, part, line).documents()
        line += part.count("\n")


def _yaml(path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        problem = 'manifests need PyYAML: pip install "idemwatch[web]"'
        raise ConfigurationError(path, problem) from error
    return yaml


def _blank(part: str) -> bool:
    lines = part.removeprefix("---").split("\n")
    return all(line.lstrip()[:1] in ("", "#", "%") for line in lines)


class _Builder:
    """The documents of a part between two markers, which begins at line `first`."""

    def __init__(self, yaml: Any, part: str, first: int) -> None:
        self.yaml, self.part, self.first = yaml, part, first
        self.last = first + part.rstrip().count("\n")
        self._begin()

    def _begin(self) -> None:
        self.root: Node | None = None
        self.open: list[list[Node]] = []
        self.anchors: dict[str, Node] = {}
        self.nodes = self.aliases = 0

    def documents(self) -> Iterator[Node | NodeError]:
        loader = getattr(self.yaml, "CSafeLoader", self.yaml.SafeLoader)
        try:
            for event in self.yaml.parse(self.part, Loader=loader):
                self._take(event)
                if isinstance(event, self.yaml.DocumentEndEvent) and self.root is not None:
                    if self.root.templated:
                        raise self.root.wrong(TEMPLATE)
                    yield self.root
                    self._begin()
        except NodeError as error:
            yield error
        except (self.yaml.YAMLError, ValueError, OverflowError) as error:
            yield self._refused(error)

    def _take(self, event: Any) -> None:
        if isinstance(event, self.yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, self.yaml.ScalarEvent):
            self._add(event, "scalar", event.value, event.implicit[0])
        elif isinstance(event, self.yaml.CollectionStartEvent):
            mapping = isinstance(event, self.yaml.MappingStartEvent)
            self._nest(self._add(event, "mapping" if mapping else "sequence"))
        elif isinstance(event, self.yaml.CollectionEndEvent):
            self.open.pop()

    def _add(
        self,
        event: Any,
        kind: Literal["scalar", "mapping", "sequence"],
        text: str = "",
        plain: bool = False,
    ) -> Node:
        node = Node(kind, *self._place(event.start_mark), text, plain)
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise node.wrong(f"over {MOST_NODES} values in one document: split it")
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self._hang(node)
        return node

    def _nest(self, node: Node) -> None:
        if len(self.open) >= DEEPEST:
            raise node.wrong(f"it is nested over {DEEPEST} deep")
        children: list[Node] = []
        node.children = children
        self.open.append(children)

    def _alias(self, event: Any) -> None:
        self.aliases += 1
        line, column = self._place(event.start_mark)
        if self.aliases > MOST_ALIASES:
            raise NodeError(line, column, f"over {MOST_ALIASES} aliases: write them out")
        if event.anchor not in self.anchors:
            raise NodeError(line, column, f"no anchor &{event.anchor[:40]}")
        self._hang(self.anchors[event.anchor])

    def _hang(self, node: Node) -> None:
        if self.open:
            self.open[-1].append(node)
        else:
            self.root = node

    def _place(self, mark: Any) -> tuple[int, int]:
        line = self.first + mark.line
        return (line, mark.column + 1) if line <= self.last else (self.last, 1)

    def _at(self, index: int) -> tuple[int, int]:
        before = self.part[:index]
        return self.first + before.count("\n"), index - before.rfind("\n")

    def _refused(self, error: Exception) -> NodeError:
        if "{{" in self.part:
            return NodeError(*self._at(self.part.index("{{")), TEMPLATE)
        if isinstance(error, self.yaml.reader.ReaderError):
            found = self.yaml.reader.Reader.NON_PRINTABLE.search(self.part)
            return NodeError(*self._at(found.start() if found else 0), f"no YAML: {error.reason}")
        mark = getattr(error, "problem_mark", None)
        place = self._place(mark) if mark else (self.first, 1)
        hint = "; quote a value that begins with * or @" if _context(error) in _QUOTE else ""
        return NodeError(*place, f"no YAML: {getattr(error, 'problem', None) or error}{hint}")


def _context(error: Exception) -> str:
    return getattr(error, "context", None) or ""
