"""Adds arguments to a decorator as it is written, on libcst: comments and layout stay.

`@app.task` becomes `@app.task(base=IdempotentTask)`; a list of arguments on one line stays there
while it fits; one on several lines gets further lines of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import libcst as cst

WIDTH: Final = 88
Space = cst.BaseParenthesizableWhitespace


def with_arguments(
    written: str, added: Sequence[str], *, replaced_base: str, newline: str, indent: str, unit: str
) -> str:
    """The expression with further arguments, each as source.

    `indent` is that of the decorator's line, `unit` one level more; `replaced_base` the new value
    of an argument `base` that is there. Raises cst.ParserSyntaxError.
    """
    empty = cst.Module(body=[], default_newline=newline)
    config = cst.PartialParserConfig(default_newline=newline)
    node = cst.parse_expression(written, config)
    call = node if isinstance(node, cst.Call) else cst.Call(func=node)
    old = [_rebased(one, replaced_base) for one in call.args]
    new = [_argument(one) for one in added]
    if not new:
        return empty.code_for_node(call.with_changes(args=old))
    if "\n" in written or "\r" in written:
        inner = _indent_of(call, indent + unit)
        fitted = [_fitted(one, inner, unit) for one in new]
        return empty.code_for_node(_on_lines(call, old, fitted, inner))
    flat = _flat(call, old, new)
    code = empty.code_for_node(flat)
    if len(indent) + 1 + len(code) <= WIDTH:
        return code
    fitted = [_fitted(one, indent + unit, unit) for one in new]
    return empty.code_for_node(_one_a_line(call, [*old, *fitted], indent, unit))


def _argument(source: str) -> cst.Arg:
    call = cst.parse_expression(f"f({source})")
    assert isinstance(call, cst.Call)  # noqa: S101  it was written so, one line above
    return call.args[0]


def _fitted(one: cst.Arg, indent: str, unit: str) -> cst.Arg:
    """The argument with its innermost call on lines of its own, if it is too long for one."""
    call = one.value.body if isinstance(one.value, cst.Lambda) else one.value
    length = len(indent) + len(cst.Module(body=[]).code_for_node(one)) + 1
    if length <= WIDTH or not isinstance(call, cst.Call):
        return one
    last = call.args[-1].with_changes(comma=cst.Comma(whitespace_after=_line_end(indent)))
    opened = _line_end(indent + unit)
    broken = call.with_changes(args=[*call.args[:-1], last], whitespace_before_args=opened)
    value = one.value.with_changes(body=broken) if isinstance(one.value, cst.Lambda) else broken
    return one.with_changes(value=value)


def _rebased(one: cst.Arg, base: str) -> cst.Arg:
    if base and one.keyword is not None and one.keyword.value == "base":
        return one.with_changes(value=cst.parse_expression(base))
    return one


def _flat(call: cst.Call, old: Sequence[cst.Arg], new: Sequence[cst.Arg]) -> cst.Call:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    args = [
        one if isinstance(one.comma, cst.Comma) and not last else one.with_changes(comma=comma)
        for one, last in [(one, one is old[-1]) for one in old]
    ]
    args += [one.with_changes(comma=comma) for one in new]
    args[-1] = args[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return call.with_changes(args=args)


def _line_end(indent: str) -> cst.ParenthesizedWhitespace:
    return cst.ParenthesizedWhitespace(
        first_line=cst.TrailingWhitespace(), indent=False, last_line=cst.SimpleWhitespace(indent)
    )


def _one_a_line(call: cst.Call, args: Sequence[cst.Arg], indent: str, unit: str) -> cst.Call:
    between = cst.Comma(whitespace_after=_line_end(indent + unit))
    told = [one.with_changes(comma=between, whitespace_after_arg=cst.SimpleWhitespace(""))
            for one in args]  # fmt: skip
    told[-1] = told[-1].with_changes(comma=cst.Comma(whitespace_after=_line_end(indent)))
    return call.with_changes(args=told, whitespace_before_args=_line_end(indent + unit))


def _on_lines(
    call: cst.Call, old: Sequence[cst.Arg], new: Sequence[cst.Arg], indent: str
) -> cst.Call:
    """Further lines, indented as those that are there; the bracket stays where it is."""
    if not old:
        closing: Space = call.whitespace_before_args
        before: Space = _opened(closing, indent)
        return call.with_changes(whitespace_before_args=before, args=_lines(new, indent, closing))
    last = old[-1]
    comma = last.comma if isinstance(last.comma, cst.Comma) else None
    closing = comma.whitespace_after if comma else last.whitespace_after_arg
    before = comma.whitespace_before if comma else cst.SimpleWhitespace("")
    joint = cst.Comma(whitespace_before=before, whitespace_after=_opened(closing, indent))
    kept = last.with_changes(comma=joint, whitespace_after_arg=cst.SimpleWhitespace(""))
    return call.with_changes(args=[*old[:-1], kept, *_lines(new, indent, closing)])


def _indent_of(call: cst.Call, otherwise: str) -> str:
    """How far the arguments that begin a line are indented."""
    spaces = [call.whitespace_before_args] if call.args else []
    commas = [one.comma for one in call.args[:-1] if isinstance(one.comma, cst.Comma)]
    spaces += [comma.whitespace_after for comma in commas]
    broken = [one for one in spaces if isinstance(one, cst.ParenthesizedWhitespace)]
    return broken[0].last_line.value if broken else otherwise


def _opened(closing: Space, indent: str) -> cst.ParenthesizedWhitespace:
    """What stands between the last old argument and the first new one: comments are kept there."""
    if isinstance(closing, cst.ParenthesizedWhitespace):
        return closing.with_changes(indent=False, last_line=cst.SimpleWhitespace(indent))
    return _line_end(indent)


def _lines(new: Sequence[cst.Arg], indent: str, closing: Space) -> list[cst.Arg]:
    between = cst.Comma(whitespace_after=_line_end(indent))
    args = [one.with_changes(comma=between) for one in new]
    if isinstance(closing, cst.ParenthesizedWhitespace):
        end = _line_end(closing.last_line.value)
        args[-1] = args[-1].with_changes(comma=cst.Comma(whitespace_after=end))
    else:
        args[-1] = args[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return args
