"""Export of a task for Harbor: a folder with an instruction, a container, a grader, and the initial script as solution.

The format is that of Harbor's task.toml, schema 1.4. The agent works in /app, which holds the data and the initial
script, and leaves `submission.csv` there. The verifier gets this file and the hidden answers in a container of its own,
and writes the gain of the submission, between 0 and 1, as the reward.
"""

import ast
import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from tasks.entry import Entry
from tasks.prompt import problem_text
from tasks.task import SUBMISSION, Instance, Task, draw_instance

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE, HIDDEN, LOGS = "/app", "/tests", "/logs/verifier"
MINUTES = 30.0  # of the agent
GRADER_PACKAGES = ("pyarrow",)  # what the grader needs besides the task environment
BASE_IMAGE = "python:3.12-slim"

DOCKERFILE = f"""\
FROM {BASE_IMAGE}
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir -r /tmp/requirements.txt
COPY files/ {WORKSPACE}/
WORKDIR {WORKSPACE}
"""
TEST = f"""\
#!/bin/bash
mkdir -p {LOGS}
cd {HIDDEN} && python grade_submission.py {WORKSPACE}/{SUBMISSION} {LOGS}
"""
SOLVE = """\
#!/bin/bash
cd {workspace} && python {script}
"""
GRADER = '''\
"""Grade a submission: python grade_submission.py SUBMISSION LOGS writes reward.json and details.json."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from tasks.grading import InvalidSubmission, grade
from tasks.task import Submission, Task

HERE = Path(__file__).parent
stated = json.loads((HERE / "task.json").read_text())
form = Submission(stated.pop("id"), tuple(stated.pop("columns")))
has_grader = stated.pop("has_grader")
task = Task(**stated, submission=form, public=HERE, private=HERE / "private")
task = replace(task, grader=HERE / "grade.py") if has_grader else task
submission, logs = map(Path, sys.argv[1:])
score, reason = None, ""
try:
    score = grade(task, submission.read_bytes())
except FileNotFoundError:
    reason = "there is no submission"
except InvalidSubmission as error:
    reason = str(error)
gain = 0.0 if score is None else task.gain(score)
reward = min(max(gain, 0.0), 1.0)
(logs / "reward.json").write_text(json.dumps({"reward": reward, "gain": gain, "valid": float(score is not None)}))
(logs / "details.json").write_text(json.dumps({"score": score, "reason": reason}))
print(reason or f"{task.metric} {score}, gain {gain:.3f}")
'''


PACKAGES = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"


def export_harbor(task: Task, entry: Entry, out: Path, python: Path, seed: int = 0) -> Path:
    """Write a task for Harbor to the folder `out/NAME`, whole or not at all, and return that folder.

    Args:
        task: The task, with its data.
        entry: The description of the task.
        out: The folder to write to.
        python: The interpreter of the task environment, whose packages the container gets.
        seed: The seed of the names of files in the task.

    Raises:
        ValueError: If the folder exists.
    """
    folder = out / task.name
    if folder.exists():
        raise ValueError(f"{folder} exists; remove it, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    instance = draw_instance(task, random.Random(f"{seed}/harbor/{task.name}"))
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as temporary:
        made = Path(temporary) / task.name
        made.mkdir()
        (made / "task.toml").write_text(_settings(task, entry))
        (made / "instruction.md").write_text(_instruction(instance))
        _write_environment(instance, made / "environment", python)
        _write_tests(task, made / "tests")
        _write_script(made / "solution" / "solve.sh", SOLVE.format(workspace=WORKSPACE, script=instance.names.script))
        made.rename(folder)
    return folder


def _settings(task: Task, entry: Entry) -> str:
    limits = task.limits
    metadata = {"metric": task.metric, "direction": task.direction, "kind": task.kind, "split": task.split}
    numbers = {"m_init": task.m_init, "m_best": task.m_best}
    lines = [
        'schema_version = "1.4"',
        f"artifacts = {json.dumps([f'{WORKSPACE}/{SUBMISSION}'])}",
        "",
        "[metadata]",
        *(f"{name} = {json.dumps(value)}" for name, value in (metadata | numbers).items()),
        f"source = {json.dumps(entry.data)}",
        "",
        "[agent]",
        f"timeout_sec = {60 * MINUTES}",
        "",
        "[verifier]",
        'environment_mode = "separate"',
        "timeout_sec = 600.0",
        "",
        "[environment]",
        f"cpus = {max(2, limits.num_threads)}",
        f"memory_mb = {max(2048, limits.memory_mb)}",
        'network_mode = "no-network"',
        f"workdir = {json.dumps(WORKSPACE)}",
    ]
    return "\n".join(lines) + "\n"


def _instruction(instance: Instance) -> str:
    task, names = instance.task, instance.names
    better = "higher" if task.direction == "maximize" else "lower"
    return (
        f"{problem_text(instance)}\n\n"
        f"You work in {WORKSPACE}. Improve the model that {names.script} trains. Your result is the file {SUBMISSION} "
        f"in {WORKSPACE}, as {names.script} writes it. It is graded on hidden answers by {task.metric} ({better} is "
        "better); the script's own validation score is only an estimate. The data files are for reading.\n"
    )


def _write_environment(instance: Instance, folder: Path, python: Path) -> None:
    files = folder / "files"
    files.mkdir(parents=True)
    for name, path in instance.data.items():
        if path.is_dir():
            shutil.copytree(path, files / name.rstrip("/"))
        else:
            shutil.copy(path, files / name)
    (files / instance.names.script).write_text(instance.script_source())
    found = subprocess.run([python, "-c", PACKAGES], capture_output=True, text=True, check=True).stdout.split()
    (folder / "requirements.txt").write_text("\n".join((*found, *GRADER_PACKAGES)) + "\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)


def _write_tests(task: Task, folder: Path) -> None:
    folder.mkdir()
    shutil.copytree(task.private, folder / "private")
    stated = {
        **{name: getattr(task, name) for name in ("name", "kind", "split", "metric", "direction", "answers")},
        **{name: getattr(task, name) for name in ("m_init", "validation_init", "m_best", "m_best_source")},
        **{"problem": "", "script": "", "id": task.submission.id, "columns": task.submission.columns},
        "has_grader": task.grader is not None,
    }
    (folder / "task.json").write_text(json.dumps(stated, indent=1))
    (folder / "grade_submission.py").write_text(GRADER)
    if task.grader is not None:
        shutil.copy(task.grader, folder / "grade.py")
    for path in imported_modules(ROOT / "tasks" / "grading.py"):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    _write_script(folder / "test.sh", TEST)


def imported_modules(module: Path) -> list[Path]:
    """Return a module of `tasks`, the modules of `tasks` that it imports, and those that these import."""
    found, waiting = {ROOT / "tasks" / "__init__.py"}, [module]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if name.startswith("tasks."):
                waiting.append(ROOT / f"{name.replace('.', '/')}.py")
    return sorted(found)


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
