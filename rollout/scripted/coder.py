"""The scripted coder, which applies recipes to carry out edit instructions, and describes files."""

import csv
import io

from rollout.scripted.recipes import Cannot, Script, apply, recognize
from rollout.types import CoderReply

MAX_CLASSES = 40  # a numeric target with more distinct values is a number rather than classes


class ScriptedCoder:
    """A coder that recognizes recipes in an instruction and applies them to the script."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or the reason why there is none. The coder never sees a score."""
        if not source.strip():
            return CoderReply(None, "the script is empty")
        names = recognize(instruction)
        if not names:
            return CoderReply(None, "I do not understand the instruction")
        try:
            return CoderReply(apply(source, names))
        except Cannot as error:
            return CoderReply(None, str(error))

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return a factual description of a CSV or Python file, in at most 40 words.

        It does not depend on `things_to_look_for`: size, columns and target of a table, or the model of a script.
        """
        if name.endswith(".csv"):
            return _describe_table(content)
        if name.endswith(".py"):
            return _describe_script(content)
        return f"{len(content.splitlines())} lines"


def _describe_table(content: str) -> str:
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=None)) if row]
    except csv.Error as error:  # such as a cell longer than `csv.field_size_limit()`
        return f"{len(content.splitlines())} lines, of which the columns cannot be told ({error})"
    if not rows:
        return "an empty file"
    header, body = rows[0], rows[1:]
    columns = [[row[i] for row in body if i < len(row) and row[i]] for i in range(len(header))]
    numeric = [bool(column) and all(_is_number(value) for value in column) for column in columns]
    features = [i for i, label in enumerate(header) if label not in ("id", "target")]
    num_numeric = sum(numeric[i] for i in features)
    empty = any(len(columns[i]) < len(body) for i in features)
    text = f"{len(body)} rows, {num_numeric} number columns, {len(features) - num_numeric} word columns"
    text += ", some values missing" if empty else ""
    if "target" not in header:
        return text
    target = header.index("target")
    classes = len(set(columns[target]))
    if numeric[target] and (classes > MAX_CLASSES or any("." in value for value in columns[target])):
        return f"{text}, the target is a number"
    return f"{text}, the target has {classes} classes"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _describe_script(content: str) -> str:
    try:
        script = Script(content)
        line = script.code(script.expression("model"))
    except Cannot as error:
        return f"{len(content.splitlines())} lines; {error}"
    return f"{len(content.splitlines())} lines, model = {line[:200]}"
