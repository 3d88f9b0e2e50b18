"""The edited script in a coder's answer: search/replace blocks, definitions, or the whole script."""

from rollout.endpoint.code_blocks import code_blocks
from rollout.endpoint.definitions import replace_definitions
from rollout.endpoint.edit_blocks import CannotApply, apply_blocks, has_blocks, parse_blocks
from rollout.endpoint.script_checks import looks_whole, new_undefined_names, placeholder, syntax_error
from rollout.options import EditFormat


class Incomplete(CannotApply):
    """An edit that applies, but lacks the imports or definitions of names.

    Attributes:
        script: The edited script.
    """

    def __init__(self, message: str, script: str) -> None:
        super().__init__(message)
        self.script = script


def has_edit(answer: str) -> bool:
    """Return whether an answer contains code, rather than a reason why there is none."""
    return has_blocks(answer) or code_blocks(answer) != ([], True)


def may_lack_blocks(answer: str) -> bool:
    """Return whether a cut answer may have been cut between two blocks: no fence closes after its last one."""
    fenced, is_closed = code_blocks(answer)
    return has_blocks(answer) and not (fenced and is_closed)


def apply_answer(answer: str, source: str, edit_format: EditFormat) -> str:
    """Return the script that an answer makes of `source`.

    Args:
        answer: The answer, without reasoning.
        source: The script to be edited.
        edit_format: What the coder was asked for. If that is blocks, an answer without any may hold definitions, or the
            whole script.

    Raises:
        CannotApply: If its blocks do not fit the script, or it has only a part of the script.
    """
    if edit_format == "blocks" and has_blocks(answer):
        return apply_blocks(source, parse_blocks(answer))
    edited = _read_code(answer, source.replace("\r\n", "\n"), edit_format)
    return edited.replace("\n", "\r\n") if "\r\n" in source else edited


def check_edit(source: str, edited: str) -> None:
    """Check that a script parses, differs from `source`, leaves nothing out and defines the names that it uses.

    Raises:
        Incomplete: If only the last is not the case.
        CannotApply: If another is not the case.
    """
    error = syntax_error(edited)
    if error:
        raise CannotApply(f"the edited script does not parse: {error}")
    if _stripped(edited) == _stripped(source):
        raise CannotApply("the edited script is the same as before")
    left_out = placeholder(source, edited)
    if left_out:
        raise CannotApply(f"the edited script has {left_out!r} in place of code")
    names = new_undefined_names(source, edited)
    if names:
        raise Incomplete(f"the edited script uses {', '.join(names)} without importing or defining it", edited)


def _read_code(answer: str, source: str, edit_format: EditFormat) -> str:
    """Return the script that the code blocks of an answer make of `source`. Raises CannotApply."""
    blocks, is_closed = code_blocks(answer)
    # An answer may repeat the script before it shows the edited one.
    changed = [block for block in blocks if _stripped(block) != _stripped(source)]
    code = max(changed or blocks, key=len, default=None)
    if code is None:
        raise CannotApply("the answer has no code block" if is_closed else "the code block does not end")
    if edit_format == "blocks":
        edited = replace_definitions(source, code)
        if edited is not None:
            return edited
    # A fence inside the script, such as in a docstring, also ends a block; a script that is cut there does not parse.
    if not looks_whole(source, code):
        raise CannotApply("the answer has only a part of the script")
    return code


def _stripped(source: str) -> list[str]:
    return [line.rstrip() for line in source.rstrip().splitlines()]
