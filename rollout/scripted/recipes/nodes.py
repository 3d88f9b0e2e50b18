"""Helpers for calls as libcst nodes: names, keyword arguments, and lists of arguments that keep their layout."""

import ast
from collections.abc import Sequence

import libcst as cst

SPACE = cst.SimpleWhitespace(" ")
NOTHING = cst.SimpleWhitespace("")


class Cannot(Exception):
    """Raised by an edit that does not fit the script; the message tells the agent why."""


def parse_call(code: str) -> cst.Call:
    """Return the node of a call, such as `Ridge(alpha=1.0)`."""
    node = cst.parse_expression(code)
    assert isinstance(node, cst.Call), f"not a call: {code}"
    return node


def code_of(node: cst.CSTNode) -> str:
    """Return the source text of a node."""
    return cst.Module(body=[]).code_for_node(node)


def call_name(node: cst.BaseExpression) -> str:
    """Return the called name, `` for other nodes."""
    return node.func.value if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) else ""


def operand(node: cst.BaseExpression) -> str:
    """Return the code of a node as the object of a method call, in parentheses if needed."""
    tight = isinstance(node, cst.Call | cst.Name | cst.Attribute | cst.Subscript) or getattr(node, "lpar", ())
    return code_of(node) if tight else f"({code_of(node)})"


def root_name(node: cst.BaseExpression) -> str:
    """Return the name at the start of a chain of methods, attributes and subscripts, `` for other nodes."""
    while not isinstance(node, cst.Name):
        if isinstance(node, cst.Call):
            node = node.func
        elif isinstance(node, cst.Attribute | cst.Subscript):
            node = node.value
        else:
            return ""
    return node.value


def argument(call: cst.Call, name: str) -> cst.BaseExpression | None:
    """Return the value of a keyword argument, None if it is absent."""
    return next((a.value for a in call.args if a.keyword is not None and a.keyword.value == name), None)


def literal(node: cst.BaseExpression) -> object:
    """Return the value of a literal, None for other nodes."""
    try:
        return ast.literal_eval(code_of(node))
    except (ValueError, SyntaxError):
        return None


def keyword(call: cst.Call, name: str) -> object:
    """Return the literal value of a keyword argument, None if it is absent or not a literal."""
    node = argument(call, name)
    return None if node is None else literal(node)


def with_keyword(call: cst.Call, name: str, value: object) -> cst.Call:
    """Return `call` with the keyword argument `name` set to the literal `value`, in its old place or at the end.

    Raises Cannot if arguments are unpacked, because any of them may be the argument.
    """
    if any(argument.star for argument in call.args):
        raise Cannot(f"the arguments of {call_name(call) or 'the call'} are not written out")
    new = cst.parse_expression(repr(value).replace("'", '"'))
    for index, argument in enumerate(call.args):
        if argument.keyword is not None and argument.keyword.value == name:
            arguments = [*call.args[:index], argument.with_changes(value=new), *call.args[index + 1 :]]
            return call.with_changes(args=arguments)
    tight = cst.AssignEqual(NOTHING, NOTHING)
    return relist(call, [*call.args, cst.Arg(new, cst.Name(name), equal=tight)])


def relist(call: cst.Call, arguments: Sequence[cst.Arg]) -> cst.Call:
    """Return `call` with other arguments, keeping the line layout, and the comments of arguments that stay."""
    old = call.args
    before = call.whitespace_before_args
    gap: cst.BaseParenthesizableWhitespace = SPACE
    if len(old) > 1 and isinstance(old[0].comma, cst.Comma):
        gap = _bare(old[0].comma.whitespace_after)
    elif isinstance(before, cst.ParenthesizedWhitespace):
        gap = _bare(before)
    end = old[-1] if old else cst.Arg(cst.Name("_"))  # its layout closes the list
    new: list[cst.Arg] = []
    for index, argument in enumerate(arguments):
        last = index == len(arguments) - 1
        was_last = argument.comma is end.comma and argument.whitespace_after_arg is end.whitespace_after_arg
        if last and not was_last:
            own = argument.comma.whitespace_after if isinstance(argument.comma, cst.Comma) else NOTHING
            if isinstance(comma := end.comma, cst.Comma):
                comma = comma.with_changes(whitespace_after=_joined(own, _bare(comma.whitespace_after)))
                own = NOTHING
            closing = _joined(own, _bare(end.whitespace_after_arg))
            argument = argument.with_changes(comma=comma, whitespace_after_arg=closing)
        elif not last and (was_last or not isinstance(argument.comma, cst.Comma)):
            after = argument.comma.whitespace_after if isinstance(argument.comma, cst.Comma) else NOTHING
            if isinstance(argument.whitespace_after_arg, cst.ParenthesizedWhitespace):
                after = argument.whitespace_after_arg
            comma = cst.Comma(whitespace_after=_joined(after, gap))
            argument = argument.with_changes(comma=comma, whitespace_after_arg=NOTHING)
        new.append(argument)
    return call.with_changes(args=new)


def _bare(space: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    """Return white space without its comments."""
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    return space.with_changes(first_line=cst.TrailingWhitespace(whitespace=NOTHING), empty_lines=[])


def _joined(
    kept: cst.BaseParenthesizableWhitespace, gap: cst.BaseParenthesizableWhitespace
) -> cst.BaseParenthesizableWhitespace:
    """Return the comments of `kept`, if any, then the line that `gap` starts."""
    if not isinstance(kept, cst.ParenthesizedWhitespace) or "#" not in code_of(kept):
        return gap
    if isinstance(gap, cst.ParenthesizedWhitespace):
        return kept.with_changes(indent=gap.indent, last_line=gap.last_line)
    return kept
