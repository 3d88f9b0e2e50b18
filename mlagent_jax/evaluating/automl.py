"""The AutoML baseline: FLAML on a task's tables, within the time of a trajectory."""

import asyncio
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from mlagent_jax.evaluating.attempts import Attempt
from mlagent_jax.evaluating.options import EvaluateOptions
from rollout.runtime.child_environment import child_environment
from rollout.runtime.parent_death import dies_with_us
from rollout.sampling.episode import draw_seed
from rollout.storage.atomic_write import write_json
from tasks.checksum import read_sealed, sealed
from tasks.grading import InvalidSubmission, grade
from tasks.task import SUBMISSION, Task

INSTALLED_AT = Path("opt/automl")  # in the environment; `make automl` puts it there
PROGRAM = Path(__file__).with_name("automl_fit.py")
EXTRA_SECONDS = 120.0  # for the start and the predictions


def require_flaml() -> Path | None:
    """Return the folder to import FLAML from, None if it is installed in this environment.

    Raises:
        ValueError: If it is not installed.
    """
    if find_spec("flaml") is not None:
        return None
    folder = Path(sys.prefix) / INSTALLED_AT
    if not (folder / "flaml").is_dir():
        raise ValueError("the agent automl needs FLAML; install mlagent-jax[automl], or run make automl")
    return folder


async def attempt(task: Task, seed: int, options: EvaluateOptions, folder: Path) -> Attempt:
    """Return FLAML's attempt at a task, which is not repeated if it is in `folder`.

    Only the data that an agent can read is passed to it.
    """
    file = folder / f"{task.name}.json"
    if (known := recorded(folder, task.name)) is not None:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / task.name
    work.mkdir(exist_ok=True)
    note, seconds = await _fit(task, seed, options, work)
    score = None
    if not note:
        try:
            score = grade(task, (work / SUBMISSION).read_bytes())
        except InvalidSubmission as error:
            note = f"the submission is not valid: {error}"
    is_valid = score is not None
    found = Attempt(
        task=task.name,
        seed=seed,
        score=score if score is not None else task.m_init,
        submitted=is_valid,
        steps=1,
        first_submission=1 if is_valid else None,
        scripts=1,
        seconds=seconds,
        failed_share=float(not is_valid),
        note=note,
    )
    write_json(file, sealed(asdict(found)))
    return found


def recorded(folder: Path, task: str) -> Attempt | None:
    """Return the attempt at a task that is in `folder`, None if there is none or it is damaged."""
    try:
        return Attempt(**read_sealed(folder / f"{task}.json"))
    except (FileNotFoundError, ValueError, TypeError):
        return None


async def _fit(task: Task, seed: int, options: EvaluateOptions, work: Path) -> tuple[str, float]:
    """Run the program that fits, and return why there is no submission, `` if there is one, and its seconds."""
    if not all((task.public / f"{name}.csv").is_file() for name in ("train", "test")):
        return "the task has no tables train.csv and test.csv", 0.0
    problem = {
        "data": str(task.public.absolute()),
        "kind": task.kind,
        "metric": task.metric,
        "id": task.submission.id,
        "columns": list(task.submission.columns),
        "seconds": 60 * options.minutes,
        "threads": options.slots,
        "seed": draw_seed(seed, "automl", task.name),
    }
    write_json(work / "problem.json", problem)
    environment = {**child_environment(), **dies_with_us()}
    if (folder := require_flaml()) is not None:
        environment["PYTHONPATH"] = str(folder)
    (work / SUBMISSION).unlink(missing_ok=True)
    began = asyncio.get_running_loop().time()
    with open(work / "log.txt", "wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", str(PROGRAM), "problem.json"),
            cwd=work,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(60 * options.minutes + EXTRA_SECONDS):
                code = await process.wait()
        except TimeoutError:
            code = "the time limit"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    seconds = asyncio.get_running_loop().time() - began
    if code == 0 and (work / SUBMISSION).exists():
        return "", seconds
    last = (work / "log.txt").read_text(errors="replace").strip().splitlines()[-1:] or [f"it ended with {code}"]
    return f"FLAML failed: {last[0][:200]}", seconds
