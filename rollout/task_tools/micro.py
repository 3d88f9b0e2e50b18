"""A micro version of a task: a folder of its own, with fewer rows of the same data behind the same interface."""

import shutil
import tempfile
from pathlib import Path

import yaml

from rollout.storage.directory_manifest import link_or_copy
from tasks.entry import Entry
from tasks.metric import METRICS
from tasks.micro import shrink

COPIED = ("problem.md", "train.py", "grade.py")
# Where the whole task's data come from, what they scored elsewhere, and the noise, which fewer rows have more of.
DROPPED = ("packages", "kaggle", "downloads", "medals", "paper", "noise")
PREPARE = '''\
"""{rows} training rows of the task {parent}, drawn from its prepared data in raw/; by `python -m tasks micro`."""

from pathlib import Path

from tasks.micro import shrink
from tasks.task import Submission


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Writes the rows drawn."""
    shrink(raw, public, private, {arguments})
'''


def make_micro(parent: Entry, data: Path, rows: int, out: Path) -> Path:
    """Return the folder of a new task in `out`: `parent`, with `rows` training rows of its data in `data`.

    The folder has the parent's data within it, as links where the file system can. Raises ValueError if the rows cannot
    be drawn, or the folder is there already.
    """
    name = f"{parent.name}_micro"
    target = out / name
    if target.exists():
        raise ValueError(f"{target} is there already; remove it, or name another --out")
    classes = parent.metric in METRICS and METRICS[parent.metric].form != "number"
    arguments = {"rows": rows, "submission": parent.submission, "answers": parent.answers, "classes": classes}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}.") as folder:
        aside, trial = Path(folder) / "task", Path(folder) / "trial"
        for part in ("public", "private"):
            (trial / part).mkdir(parents=True)
            shutil.copytree(data / parent.name / part, aside / "raw" / part, copy_function=link_or_copy)
        try:
            shrink(aside / "raw", trial / "public", trial / "private", **arguments)
        except ValueError as error:
            raise ValueError(f"task {parent.name} has no micro version: {error}") from None
        for file in COPIED:
            if (parent.folder / file).is_file():
                shutil.copy(parent.folder / file, aside)
        words = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        (aside / "prepare.py").write_text(PREPARE.format(rows=rows, parent=parent.name, arguments=words))
        stated = yaml.safe_load((parent.folder / "task.yaml").read_text(encoding="utf-8"))
        stated = {key: value for key, value in stated.items() if key not in DROPPED} | {
            "name": name,
            "m_best_source": f"{parent.name}, with all its rows: {parent.m_best_source}",
            "data": f"{rows} training rows of {parent.name}: {parent.data}",
        }
        (aside / "task.yaml").write_text(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True), encoding="utf-8")
        aside.rename(target)
    return target
