"""Short feedback texts from outputs, errors and diffs; pure functions of text."""

import difflib
import re
from collections.abc import Sequence

from rollout.executor.known_failures import TRACEBACK, cause_of
from rollout.options import Observation
from rollout.types import Execution, Exit
from tasks.feedback import SCORE_LINE, error_text, shorten
from tasks.quoting import one_line
from tasks.task import Limits

# Limits in characters that do not depend on the model; the others are the section `observation`.
LINE_LIMIT = 160
REASON_LIMIT = 300

EXCEPTION_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b.*", re.MULTILINE)
IMPORT_LINE = re.compile(r"[+-](?:import|from) ")
FRAME_LINE = re.compile(
    r'^  File "(?:[^"\n]*/)?(?P<file>[^"/\n]+)", line (?P<number>\d+)(?:, in (?P<function>[^\n]+))?[^\n]*'
    r"(?:\n    (?P<code>[^\n]+))?",
    re.MULTILINE,
)
# What Python prints between the traceback of a cause and that of the exception.
CHAINED = re.compile(r"\n\n(?:The above exception was the direct cause|During handling of the above)[^\n]*\n\n\Z")
NOT_INDENTED = re.compile(r"^\S.*", re.MULTILINE | re.DOTALL)
# The traceback of an exception that Python reports and ignores, as of a failing `__del__`.
IGNORED = re.compile(rf"^Exception ignored [^\n]*\n{re.escape(TRACEBACK)}(?: [^\n]*\n)*[^\n]*\n?", re.MULTILINE)


def diff_text(old: str, new: str, limit: int) -> str:
    """Return the removed and added lines of the unified diff of two sources, at most `limit` characters of them.

    Headers and context are left out. So are imports, which follow from the code, unless nothing else changed.
    """
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    changed = [line for line in lines if not line.startswith("@@")]
    shown = [line for line in changed if not IMPORT_LINE.match(line)] or changed
    return shorten("\n".join(_cut(line, LINE_LIMIT) for line in shown), limit)


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


def as_displayed(output: str) -> str:
    """Return what a terminal displays: the last state of a line that is written repeatedly, like a progress bar."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.split("\n"))


def output_text(output: str, limit: int) -> str:
    """Return the end of a script's output, with its last score line even if that was printed earlier."""
    output = as_displayed(output)
    tail = tail_lines(output, limit)
    scores = list(SCORE_LINE.finditer(output))
    if scores and not SCORE_LINE.search(tail):
        tail = f"{tail}\n{_cut(scores[-1][0].strip(), LINE_LIMIT)}"
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


def excerpt(name: str, lines: Sequence[str], first: int, of: object, limit: int) -> str:
    """Return lines of a file under a heading that names them, as many of the first ones as fit into `limit` characters.

    Args:
        name: The name of the file.
        lines: The lines to show.
        first: The number of the first of them, from 1.
        of: What they are a part of: the number of all lines, or the size of a large file.
        limit: The maximum number of characters of the lines.
    """
    shown = head_lines(lines, limit)
    return "\n".join([f"{one_line(name)}, lines {first} to {first + len(shown) - 1} of {of}:", *shown])


def error_summary(output: str, script: str, observation: Observation) -> str:
    """Return what a script printed about its error, or the output's last lines if it printed no exception."""
    summary = traceback_text if observation.traceback else _failing_line
    return summary(IGNORED.sub("", as_displayed(output)), script, observation.error_characters)


def traceback_text(output: str, script: str, limit: int) -> str:
    """Return the calls in `script` and the whole message of the last traceback, or the output's last lines.

    The message has two thirds of the limit. In the rest are as many of the last calls as fit, at least one. If the last
    traceback has no call in `script`, because a message quotes it (as scikit-learn's do), they are of one before.
    """
    frames = list(FRAME_LINE.finditer(output, max(output.rfind(TRACEBACK), 0)))
    message = NOT_INDENTED.search(output, frames[-1].end()) if frames else None
    # A syntax error has no heading. Frames without either are of a fatal error, which comes before them.
    if message is None or not (TRACEBACK in output or EXCEPTION_LINE.match(message[0])):
        return tail_lines(output, limit)
    text = shorten(f"{message[0].strip()}{_causes(output)}", 2 * limit // 3)
    calls = next(filter(None, (_calls(part, script) for part in reversed(output.split(TRACEBACK)))), [])
    newest_first = [_cut(call, limit // 3) for call in reversed(calls)]
    shown = head_lines(newest_first, max(limit - len(text), limit // 3))
    cut = ["..."] if len(shown) < len(calls) else []
    return "\n".join([*cut, *reversed(shown), text])


def _causes(output: str) -> str:
    """Return a line for the exception that the last one was raised from, or while handling it; empty if none was."""
    before, _, _ = output.rpartition(TRACEBACK)
    chained = CHAINED.search(before)
    if chained is None:
        return ""
    _, _, traceback = before[: chained.start()].rpartition(TRACEBACK)
    frames = list(FRAME_LINE.finditer(traceback))
    message = NOT_INDENTED.search(traceback, frames[-1].end()) if frames else None
    return f"\ncaused by {message[0].splitlines()[0]}" if message else ""


def _calls(traceback: str, script: str) -> list[str]:
    return [_call(frame) for frame in FRAME_LINE.finditer(traceback) if frame["file"] == script]


def _call(frame: re.Match[str]) -> str:
    function = frame["function"]
    place = f"line {frame['number']}" + (f", in {function}" if function and function != "<module>" else "")
    return f"{place}: {frame['code']}" if frame["code"] else place


def _failing_line(output: str, script: str, limit: int) -> str:
    """Return the failing line of `script` and the message's first line, or the output's last lines."""
    exceptions = list(EXCEPTION_LINE.finditer(output))
    if not exceptions:
        return tail_lines(output, limit)
    lines = []
    frames = [frame for frame in FRAME_LINE.finditer(output, 0, exceptions[-1].start()) if frame["file"] == script]
    if frames:
        number, code = frames[-1]["number"], frames[-1]["code"]
        lines.append(f"line {number}: {shorten(code, limit // 3)}" if code else f"line {number}")
    lines.append(shorten(f"{exceptions[-1][0]}{_causes(output)}", limit // 2))
    return "\n".join(lines)


def failure_text(script: str, execution: Execution, limits: Limits, observation: Observation) -> str:
    """Return the feedback on a run that failed."""
    summary = error_summary(execution.output, script, observation)
    cause = cause_of(execution, limits)
    match execution.exit:
        case Exit.TIMEOUT:
            stopped = f"Stopped: {script} ran longer than {limits.seconds:g} s."
        case Exit.OUT_OF_MEMORY if not cause:
            stopped = f"Stopped: {script} used more than {limits.memory_mb} MiB of memory."
        case Exit.OUT_OF_DISK:
            stopped = f"Stopped: {script} wrote more than the disk space it has."
        case Exit.CRASHED | Exit.KILLED:
            stopped = error_text(f"{script} crashed.\n{summary}".rstrip())
        case _:  # a limit that `cause` names
            stopped = f"Stopped: {script} reached a limit.\n{summary}".rstrip()
    if execution.exit in (Exit.TIMEOUT, Exit.OUT_OF_MEMORY, Exit.OUT_OF_DISK) and not cause:
        last = tail_lines(as_displayed(execution.output), observation.error_characters)
        stopped += f"\nIts last output:\n{last}" if last else ""
    return f"{stopped}\n{cause}" if cause else stopped
