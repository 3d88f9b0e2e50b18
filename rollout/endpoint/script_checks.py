"""Checks of an edited script that need no run: whether it parses, is whole, and defines the names it uses."""

import ast
import builtins
import re

from tasks.task import SUBMISSION

MARKS = (SUBMISSION, "validation ")  # texts in the statements that every script is for: its submission and its score
MODULE_NAMES = frozenset(dir(builtins)) | {"__file__", "__name__", "__doc__"}
WORD = re.compile(r"[^\W\d]\w+")
PLACEHOLDER = re.compile(
    r"\s*#\s*(\.{3}|…)|\s*#.*\b((rest|remainder) of the|(existing|previous|remaining|original) code"
    r"|unchanged|(remains?|is) the same|(as|same as) before)\b",
    re.IGNORECASE,
)
MIN_KEPT_SHARE = 0.5  # of the words of a script without marks


def syntax_error(source: str) -> str:
    """Return the reason why a script does not parse, `` if it does."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f"{error.msg} in line {error.lineno}"
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or too many brackets
        return str(error) or type(error).__name__
    return ""


def looks_whole(source: str, code: str) -> bool:
    """Return whether `code` may replace the script `source`, rather than be a fragment of it.

    It must still write the submission and print the validation score, if `source` does. If `source` does neither, it
    must have half of its words. It must have more than functions and classes, which do nothing, if `source` has more.
    A caller must also check that it defines the names that it uses, which a fragment rarely does
    (`new_undefined_names`).
    """
    if _does_something(source) and not _does_something(code):
        return False
    marks = [mark for mark in MARKS if mark in source]
    if marks:
        return all(mark in code for mark in marks)
    words = set(WORD.findall(source))
    return len(words & set(WORD.findall(code))) >= MIN_KEPT_SHARE * len(words)


def placeholder(source: str, edited: str) -> str:
    """Return what the script `edited`, which parses, has in place of lines of `source`; `` if there is nothing.

    That is a new statement `...`, or a new comment about code that is not repeated, if there are fewer lines of code.
    """
    if _num_ellipses(edited) > (0 if syntax_error(source) else _num_ellipses(source)):
        return "..."
    if _num_code_lines(edited) >= _num_code_lines(source):
        return ""
    old = {line.strip() for line in source.splitlines()}
    new = (line.strip() for line in edited.splitlines() if PLACEHOLDER.match(line))
    return next((line[:80] for line in new if line not in old), "")


def _num_ellipses(source: str) -> int:
    statements = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    return sum(isinstance(value, ast.Constant) and value.value is ... for value in statements)


def _num_code_lines(source: str) -> int:
    return sum(not line.lstrip().startswith("#") for line in source.splitlines() if line.strip())


def _does_something(source: str) -> bool:
    """Return whether a script has more than imports, definitions and docstrings, or does not parse."""
    if syntax_error(source):
        return True
    idle = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not all(
        isinstance(node, idle) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.parse(source).body
    )


def new_undefined_names(source: str, edited: str) -> list[str]:
    """Return the names that the script `edited` uses but nowhere defines or imports, unless `source` does so too."""
    return sorted(_undefined_names(edited) - _undefined_names(source))


def _undefined_names(source: str) -> set[str]:
    """Return the names that a script reads and nowhere binds, in any scope; none if it does not parse."""
    if syntax_error(source):
        return set()
    used: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias(name="*"):
                return set()  # the names that it binds are not known
            case ast.alias(name=name, asname=alias):
                bound.add(alias or name.split(".")[0])
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                bound.add(name)
            case _:
                pass
    return used - bound - MODULE_NAMES
