"""Edits of a script as whole functions and classes, which replace those of the same name."""

import ast

from rollout.endpoint.script_checks import syntax_error

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def replace_definitions(source: str, code: str) -> str | None:
    """Return a script with the functions and classes of `code` in place of its own of the same names.

    Returns:
        None unless both parse, `code` consists of definitions alone, and the script has exactly one of each name.
    """
    if syntax_error(source) or syntax_error(code):
        return None
    new = [node for node in ast.parse(code).body if isinstance(node, Definition)]
    if not new or len(new) < len(ast.parse(code).body):
        return None
    lines, replacements = source.splitlines(keepends=True), []
    for definition in new:
        old = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, Definition) and node.name == definition.name
        ]
        if len(old) != 1:
            return None
        text = "".join(code.splitlines(keepends=True)[_first_line(definition) : definition.end_lineno])
        replacements.append((_first_line(old[0]), old[0].end_lineno, _indented(text, " " * old[0].col_offset)))
    replacements.sort()
    if any(first < last for (_, last, _), (first, _, _) in zip(replacements, replacements[1:], strict=False)):
        return None  # one holds the other
    for first, last, text in reversed(replacements):
        lines[first:last] = [text]
    return "".join(lines)


def _first_line(definition: Definition) -> int:
    """Return the index of the first line, that of a decorator if there is one."""
    return min([definition.lineno, *(each.lineno for each in definition.decorator_list)]) - 1


def _indented(text: str, indent: str) -> str:
    lines = text.splitlines(keepends=True)
    lines[-1] = lines[-1].rstrip("\n") + "\n"
    return "".join(f"{indent}{line}" if line.strip() else line for line in lines)
