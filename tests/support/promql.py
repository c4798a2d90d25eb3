"""What a PromQL query asks for: which series, by which labels, and which labels its answer has.

The grammar is that of promql-parser; the labels of an answer are inferred here, as Prometheus makes
them. Invariant: a query that names a series or a label that nobody exports has a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import promql_parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorMatchCardinality,
    VectorSelector,
)

Labels = frozenset[str]
ANY: Final[Labels] = frozenset({"*"})
"""Labels that cannot be known, as those of `ALERTS`."""
TARGET: Final[Labels] = frozenset({"job", "instance"})
"""Labels that Prometheus gives to all that it scrapes."""
NOTHING: Final[Labels] = frozenset()
_RATES: Final = {"rate", "irate", "increase"}
_WITHOUT_VECTOR: Final = {"scalar", "vector", "time", "pi"}
_KEEP_ALL: Final = {"topk", "bottomk", "limitk", "limit_ratio"}
_SETS: Final = {"and", "or", "unless"}
_DURATION: Final = re.compile(r"\$\{?__(?:rate_interval|interval|range)\}?")
_SECONDS: Final = re.compile(r"\$\{?__(?:range|interval|rate_interval)_(?:s|ms)\}?")


@dataclass(frozen=True, slots=True)
class Series:
    """A series that exists. `values`: of the labels that have few; `counts`: it may be rated."""

    labels: Labels
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counts: bool = True


@dataclass(slots=True)
class Query:
    """A query against the `known` series: its problems, and the labels of its answer."""

    text: str
    known: Mapping[str, Series]
    problems: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    """Series that it asks for."""
    labels: Labels = NOTHING

    def __post_init__(self) -> None:
        try:
            parsed = promql_parser.parse(plain(self.text))
        except ValueError as error:
            self.problems.append(f"cannot be parsed: {error}")
        else:
            self.labels = self._of(parsed)

    def needs(self, labels: Iterable[str], have: Labels, use: str) -> None:
        """Each of `labels` must be among those that are there."""
        missing = [] if "*" in have else sorted(set(labels) - have)
        if missing:
            self.problems.append(f"{use} {', '.join(missing)}: there is only {sorted(have)}")

    def _of(self, node: Any) -> Labels:
        found = _RULES.get(type(node))
        return found(self, node) if found else NOTHING

    def _inner(self, node: Any) -> Labels:
        return self._of(node.expr)

    def _matrix(self, node: Any) -> Labels:
        return self._of(node.vector_selector)

    def _selector(self, node: Any) -> Labels:
        matchers = [one for one in node.matchers.matchers if one.name != "__name__"]
        if node.name is None:
            self.problems.append(f"{node} names no series")
            return ANY
        self.named.add(node.name)
        series = self.known.get(node.name)
        if series is None:
            self.problems.append(f"{node.name} does not exist")
            return ANY
        self.needs((one.name for one in matchers), series.labels, f"{node.name} matched by")
        for one in matchers:
            self._values(node.name, one, series.values.get(one.name))
        return series.labels

    def _values(self, name: str, matcher: Any, known: Sequence[str] | None) -> None:
        """Each of the words that are asked for must be a value that comes."""
        words = matcher.value.split("|") if "Re" in str(matcher.op) else [matcher.value]
        for word in words:
            plain_word = re.fullmatch(r"[\w:-]+", word)
            if known is not None and plain_word and word not in known:
                self.problems.append(f"{name}: {matcher.name} is never {word!r}")

    def _call(self, node: Any) -> Labels:
        name = node.func.name
        of = [self._of(one) for one in node.args]
        if name in _RATES:
            self._rated(node.args[0])
        if name in _WITHOUT_VECTOR:
            return NOTHING
        if name.startswith("absent"):
            return _equal_matchers(node.args[0])
        vectors: Labels = frozenset().union(*of)
        if name.startswith("histogram_quantile"):
            self.needs(["le"], vectors, "histogram_quantile over")
            return vectors - {"le"}
        if name in ("label_replace", "label_join"):
            return self._relabelled(node, vectors)
        return vectors

    def _rated(self, of: Any) -> None:
        name = str(getattr(getattr(of, "vector_selector", None), "name", None))
        if name in self.known and not self.known[name].counts:
            self.problems.append(f"{name} is no counter, and is rated")

    def _relabelled(self, node: Any, labels: Labels) -> Labels:
        words = [one.val for one in node.args if isinstance(one, StringLiteral)]
        sources = words[2:3] if node.func.name == "label_replace" else words[2:]
        self.needs((one for one in sources if one), labels, f"{node.func.name} from")
        return labels | {words[0]}

    def _aggregate(self, node: Any) -> Labels:
        labels, operation = self._of(node.expr), str(node.op)
        named, without = _modifier(node.modifier) if node.modifier else (NOTHING, False)
        self.needs(named, labels, f"{operation} {'without' if without else 'by'}")
        if operation in _KEEP_ALL:
            return labels
        kept = labels - named if without else named
        if operation == "count_values" and isinstance(node.param, StringLiteral):
            kept |= {node.param.val}
        return kept

    def _binary(self, node: Any) -> Labels:
        left, right = self._of(node.lhs), self._of(node.rhs)
        if node.modifier is None or _is_scalar(node.lhs) or _is_scalar(node.rhs):
            return left | right
        named, ignoring = _modifier(node.modifier.matching)
        if not ignoring:
            for side in (left, right):
                self.needs(named, side, "on")
        operation, card = str(node.op), node.modifier.card
        if operation in _SETS:
            return left | right if operation == "or" else left
        more = frozenset(node.modifier.group_labels or ())
        if card == VectorMatchCardinality.ManyToOne:
            self.needs(more, right, "group_left")
            return left | more
        if card == VectorMatchCardinality.OneToMany:
            self.needs(more, left, "group_right")
            return right | more
        return left - named if ignoring else named


_RULES: Final[Mapping[type, Callable[[Query, Any], Labels]]] = {
    VectorSelector: Query._selector,
    MatrixSelector: Query._matrix,
    SubqueryExpr: Query._inner,
    ParenExpr: Query._inner,
    UnaryExpr: Query._inner,
    Call: Query._call,
    AggregateExpr: Query._aggregate,
    BinaryExpr: Query._binary,
}


def plain(text: str) -> str:
    """A query of Grafana as Prometheus gets it, with some range for those that Grafana chooses."""
    return _DURATION.sub("5m", _SECONDS.sub("300", text))


def _modifier(modifier: Any) -> tuple[Labels, bool]:
    """The labels, and whether it is all the others that are kept or matched."""
    if modifier is None:
        return NOTHING, True
    return frozenset(modifier.labels), str(modifier.type).endswith(("Without", "Exclude"))


def _is_scalar(node: Any) -> bool:
    while isinstance(node, ParenExpr | UnaryExpr):
        node = node.expr
    if isinstance(node, BinaryExpr):
        return _is_scalar(node.lhs) and _is_scalar(node.rhs)
    if isinstance(node, Call):
        return str(node.func.return_type).endswith("Scalar")
    return isinstance(node, promql_parser.NumberLiteral)


def _equal_matchers(node: Any) -> Labels:
    while isinstance(node, ParenExpr):
        node = node.expr
    selector = getattr(node, "vector_selector", node)
    if not isinstance(selector, VectorSelector):
        return NOTHING
    equal = (one for one in selector.matchers.matchers if str(one.op).endswith(".Equal"))
    return frozenset(one.name for one in equal)
