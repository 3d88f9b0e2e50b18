"""Write the page: one HTML file with a light index, and the trajectories in compressed chunks.

A browser reads the index at once and decompresses the chunk of a trajectory when the trajectory is opened, so a page of
ten thousand trajectories opens as fast as one of ten. Text written by an agent is in the file only in compressed base64
form and is inserted as text, never as markup. The content security policy of the page forbids all scripts but its own,
and all network access.
"""

import base64
import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import jinja2

from rollout.dataset.viewer.page_records import index_record, page_facts, task_record, text_record
from rollout.storage.atomic_write import replacing
from rollout.storage.blob_store import BlobStore
from rollout.types import Trajectory
from tasks.reward import Rules
from tasks.task import Task

CHUNK_CHARACTERS = 2 << 20  # before compression: about 450 short trajectories, or 150 of 15 steps
SCRIPTS = ("data.js", "list_filters.js", "list.js", "chart.js", "texts.js", "trajectory.js", "main.js")  # in this order
CHUNKS_MARK = "<!-- chunks -->"


def write_page(
    path: Path,
    groups: Mapping[str, Iterable[Trajectory]],
    tasks: Mapping[str, Task],
    rules: Rules,
    title: str,
    store: BlobStore | None = None,
) -> int:
    """Write the page atomically and return the number of its trajectories.

    Args:
        path: The file to write.
        groups: Name of the group -> its trajectories, which are streamed once.
        tasks: Name -> task. Trajectories of other tasks have no gains and rewards.
        rules: The rules of the reward.
        title: The title of the page.
        store: The blobs of the trajectories, for whole diffs; None leaves those out.
    """
    index = Index(tasks)
    with tempfile.TemporaryFile() as texts:
        chunks = Chunks(texts)
        for group, trajectories in groups.items():
            for trajectory in trajectories:
                task = tasks.get(trajectory.task)
                index.add(group, trajectory, task)
                chunks.add(json_line(text_record(trajectory, task, rules, store)))
        chunks.close()
        facts = {**page_facts(), "title": title, "rules": asdict(rules)}
        whole = {**facts, **index.columns(), "chunks": chunks.starts}
        before, after = _frame(title, packed(json_line(whole))).split(CHUNKS_MARK)
        texts.seek(0)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(before.encode())
            shutil.copyfileobj(texts, file)
            file.write(after.encode())
    return index.count


class Index:
    """The lines of the list as columns; common values, such as ideas, are stored once and referred to by number."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._known = tasks
        self._numbers: dict[str, dict[str, int]] = {"group": {}, "task": {}, "idea": {}, "end": {}}
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("id", "group", "task", "ideas", "end", "steps", "score", "gain", "seconds")
        }

    @property
    def count(self) -> int:
        """The number of lines."""
        return len(self._columns["id"])

    def add(self, group: str, trajectory: Trajectory, task: Task | None) -> None:
        """Add the line of a trajectory."""
        line = index_record(trajectory, task) | {"group": group}
        for name in ("group", "task", "end"):
            line[name] = self._number(name, line[name])
        line["ideas"] = [self._number("idea", idea) for idea in line["ideas"]]
        for name, column in self._columns.items():
            column.append(line[name])

    def columns(self) -> dict[str, Any]:
        """Return the columns as `rows`, and the values that their numbers refer to."""
        return {
            "groups": list(self._numbers["group"]),
            "tasks": [task_record(name, self._known.get(name)) for name in self._numbers["task"]],
            "ideas": list(self._numbers["idea"]),
            "ends": list(self._numbers["end"]),
            "rows": self._columns,
        }

    def _number(self, kind: str, value: str) -> int:
        numbers = self._numbers[kind]
        return numbers.setdefault(value, len(numbers))


class Chunks:
    """Elements of the page with a few hundred lines each, compressed together to share what they have in common."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lines: list[str] = []
        self._size = 0
        self._count = 0
        self.starts: list[int] = []  # number of the first line of each chunk

    def add(self, line: str) -> None:
        """Add a line."""
        if self._size + len(line) > CHUNK_CHARACTERS:
            self.close()
        self._lines.append(line)
        self._size += len(line)

    def close(self) -> None:
        """Write the remaining lines."""
        if not self._lines:
            return
        text = packed("\n".join(self._lines))
        element = f'<script type="text/plain" id="chunk-{len(self.starts)}">{text}</script>\n'
        self._file.write(element.encode())
        self.starts.append(self._count)
        self._count += len(self._lines)
        self._lines, self._size = [], 0


def json_line(value: Any) -> str:
    """Return `value` as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def packed(text: str) -> str:
    """Return `text` compressed with zlib and in base64, which contains no HTML markup.

    A lone surrogate, which a response may contain but UTF-8 cannot encode, becomes a question mark.
    """
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"))).decode()


def _frame(title: str, index: str) -> str:
    """Return the page without the chunks."""
    folder = Path(__file__).parent
    script = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();'
    style = (folder / "viewer.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((folder / "template.html").read_text(encoding="utf-8"))
    return template.render(
        title=title, index=index, script=script, style=style, script_hash=_hash(script), style_hash=_hash(style)
    )


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows an element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
