"""Short feedback texts from outputs, errors and diffs; pure functions of text."""

import difflib
import re
from collections.abc import Sequence

from rollout.executor.known_failures import cause_of
from rollout.types import Execution, Exit
from tasks.feedback import SCORE_LINE, error_text, shorten
from tasks.task import Limits

# Limits on the parts of a feedback, in characters. Every feedback stays in the context of all later responses.
OUTPUT_LIMIT = 400
EDIT_OUTPUT_LIMIT = 200
ERROR_LIMIT = 300
DIFF_LIMIT = 500
DIFF_LINE_LIMIT = 160
REASON_LIMIT = 300

EXCEPTION_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b.*", re.MULTILINE)
IMPORT_LINE = re.compile(r"[+-](?:import|from) ")
FRAME_LINE = re.compile(r'^  File "(?:[^"\n]*/)?([^"/\n]+)", line (\d+)[^\n]*(?:\n    ([^\n]+))?', re.MULTILINE)


def diff_text(old: str, new: str) -> str:
    """Return the removed and added lines of the unified diff of two sources.

    Headers and context are left out. So are imports, which follow from the code, unless nothing else changed.
    """
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    changed = [line for line in lines if not line.startswith("@@")]
    shown = [line for line in changed if not IMPORT_LINE.match(line)] or changed
    return shorten("\n".join(_cut(line, DIFF_LINE_LIMIT) for line in shown), DIFF_LIMIT)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else f"{line[: limit // 2]}...{line[-(limit // 2) :]}"


def tail_lines(text: str, limit: int) -> str:
    """Return the last whole lines of `text` that fit into `limit` characters, after dots if lines were cut."""
    text = text.strip()
    if len(text) <= limit:
        return text
    tail = text[-limit:]
    first_break = tail.find("\n")
    return "..." + (tail[first_break:] if 0 <= first_break < len(tail) - 1 else tail)


def output_text(output: str, limit: int) -> str:
    """Return the end of a script's output, with its last score line even if that was printed earlier."""
    tail = tail_lines(output, limit)
    scores = list(SCORE_LINE.finditer(output))
    if scores and not SCORE_LINE.search(tail):
        tail = f"{tail}\n{scores[-1][0].strip()}"
    return tail or "no output"


def head_lines(lines: Sequence[str], limit: int) -> list[str]:
    """Return the first of `lines` that fit into `limit` characters; the first line is cut if it alone is longer."""
    shown = [_cut(line, limit) for line in lines[:1]]
    left = limit - sum(map(len, shown))
    for line in lines[1:]:
        left -= len(line) + 1
        if left < 0:
            break
        shown.append(line)
    return shown


def error_summary(output: str, script: str) -> str:
    """Return the failing line of `script` and the exception's message, or the output's last lines if there is none."""
    exceptions = list(EXCEPTION_LINE.finditer(output))
    if not exceptions:
        return tail_lines(output, ERROR_LIMIT)
    lines = []
    frames = [frame for frame in FRAME_LINE.finditer(output, 0, exceptions[-1].start()) if frame[1] == script]
    if frames:
        number, code = frames[-1][2], frames[-1][3]
        lines.append(f"line {number}: {shorten(code, ERROR_LIMIT // 3)}" if code else f"line {number}")
    lines.append(shorten(exceptions[-1][0], ERROR_LIMIT // 2))
    return "\n".join(lines)


def failure_text(script: str, execution: Execution, limits: Limits) -> str:
    """Return the feedback on a run that failed."""
    cause = cause_of(execution, limits)
    match execution.exit:
        case Exit.TIMEOUT:
            stopped = f"Stopped: {script} ran longer than {limits.seconds:g} s."
        case Exit.OUT_OF_MEMORY if not cause:
            stopped = f"Stopped: {script} used more than {limits.memory_mb} MiB of memory."
        case Exit.OUT_OF_DISK:
            stopped = f"Stopped: {script} wrote more than the disk space it has."
        case Exit.CRASHED | Exit.KILLED:
            stopped = error_text(f"{script} crashed.\n{error_summary(execution.output, script)}".rstrip())
        case _:  # a limit that `cause` names
            stopped = f"Stopped: {script} reached a limit.\n{error_summary(execution.output, script)}".rstrip()
    return f"{stopped}\n{cause}" if cause else stopped
