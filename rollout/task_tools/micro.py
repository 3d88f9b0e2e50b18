"""Create a micro version of a task: a task folder with fewer rows of the same data."""

import shutil
import tempfile
from pathlib import Path

import yaml

from rollout.storage.directory_manifest import link_or_copy
from tasks.entry import Entry
from tasks.metric import METRICS
from tasks.micro import shrink

COPIED = ("problem.md", "train.py", "grade.py")
# Keys about the whole task's sources, its scores elsewhere, and its noise, which is larger with fewer rows.
DROPPED = ("packages", "kaggle", "downloads", "medals", "paper", "noise")
PREPARE = '''\
"""{rows} training rows of the task {parent}, drawn from its prepared data in raw/. Made by `python -m tasks micro`."""

from pathlib import Path

from tasks.micro import shrink
from tasks.task import Submission


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the drawn rows."""
    shrink(raw, public, private, {arguments})
'''


def make_micro(parent: Entry, data: Path, rows: int, out: Path) -> Path:
    """Create a version of the task `parent` with `rows` training rows in the folder `out`, and return its folder.

    The new folder contains the parent's data, as hard links if the file system supports them.

    Args:
        parent: The entry of the whole task.
        data: The folder of prepared tasks.
        rows: The number of training rows.
        out: The folder for the new task's folder.

    Raises:
        ValueError: If the rows cannot be drawn, or the folder exists.
    """
    name = f"{parent.name}_micro"
    target = out / name
    if target.exists():
        raise ValueError(f"{target} exists already; remove it, or choose another --out")
    classes = parent.metric in METRICS and METRICS[parent.metric].form != "number"
    arguments = {"rows": rows, "submission": parent.submission, "answers": parent.answers, "classes": classes}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}.") as folder:
        partial, trial = Path(folder) / "task", Path(folder) / "trial"
        for part in ("public", "private"):
            (trial / part).mkdir(parents=True)
            shutil.copytree(data / parent.name / part, partial / "raw" / part, copy_function=link_or_copy)
        try:
            shrink(partial / "raw", trial / "public", trial / "private", **arguments)
        except ValueError as error:
            raise ValueError(f"task {parent.name} has no micro version: {error}") from None
        for file in COPIED:
            if (parent.folder / file).is_file():
                shutil.copy(parent.folder / file, partial)
        source = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        (partial / "prepare.py").write_text(PREPARE.format(rows=rows, parent=parent.name, arguments=source))
        stated = yaml.safe_load((parent.folder / "task.yaml").read_text(encoding="utf-8"))
        stated = {key: value for key, value in stated.items() if key not in DROPPED} | {
            "name": name,
            "m_best_source": f"{parent.name}, with all its rows: {parent.m_best_source}",
            "data": f"{rows} training rows of {parent.name}: {parent.data}",
        }
        text = yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)
        (partial / "task.yaml").write_text(text, encoding="utf-8")
        partial.rename(target)
    return target
