"""Edits of a script as whole functions and classes, which replace those of the same name."""

import ast
import io
import itertools

from rollout.endpoint.script_checks import syntax_error

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def replace_definitions(source: str, code: str) -> str | None:
    """Return a script with the functions and classes of `code` in place of its own of the same names.

    Returns:
        None unless both parse, `code` consists of definitions alone, and the script has exactly one of each name.
    """
    if syntax_error(source) or syntax_error(code):
        return None
    body = ast.parse(code).body
    new = [node for node in body if isinstance(node, Definition)]
    if not new or len(new) < len(body):
        return None
    existing = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Definition)]
    lines, new_lines = _lines(source), _lines(code)
    replacements: list[tuple[int, int, str]] = []
    for definition in new:
        old = [node for node in existing if node.name == definition.name]
        if len(old) != 1:
            return None
        indent = lines[old[0].lineno - 1][: old[0].col_offset]
        text = _indented(_with_comments(definition, new_lines), indent)
        replacements.append((_first_line(old[0]), _end(old[0]), text))
    replacements.sort()
    if any(start < stop for (_, stop, _), (start, _, _) in zip(replacements, replacements[1:], strict=False)):
        return None  # one holds the other
    for start, stop, text in reversed(replacements):
        lines[start:stop] = [text]
    return "".join(lines)


def _first_line(definition: Definition) -> int:
    """Return the index of the first line, that of a decorator if there is one."""
    return min([definition.lineno, *(each.lineno for each in definition.decorator_list)]) - 1


def _end(definition: Definition) -> int:
    """Return the index of the last line + 1."""
    assert definition.end_lineno is not None, "it is parsed"
    return definition.end_lineno


def _with_comments(definition: Definition, lines: list[str]) -> list[str]:
    """Return the lines of a definition, with the comments that end its body, which may stand for what is left out."""
    end = _end(definition)
    rest = itertools.takewhile(lambda line: not line.strip() or line[0].isspace(), lines[end:])
    text = [*lines[_first_line(definition) : end], *rest]
    while not text[-1].strip():
        text.pop()
    return text


def _lines(source: str) -> list[str]:
    """Return the lines that `ast` counts; `str.splitlines` also splits at form feeds and others within strings."""
    return io.StringIO(source, newline="").readlines()


def _indented(lines: list[str], indent: str) -> str:
    text = "".join(f"{indent}{line}" if line.strip() else line for line in lines)
    return text if text.endswith(("\n", "\r")) else f"{text}\n"
