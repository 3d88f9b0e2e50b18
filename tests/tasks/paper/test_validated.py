"""The oracles of `python -m tasks validate`, on a made-up data set of the same format for each of the paper's tasks."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.validation import ORACLES, ask
from rollout.task_tools.validation.case import Case, Sandboxes, open_sandboxes
from tasks.metric import OPTIMUM
from tasks.registry import PAPER, entries, load_entry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = [entry.name for entry in entries().values() if entry.folder.parent == PAPER]
# All but the search for test rows in a sandbox: what stands there is the same for each task.
TABLES = ("answers", "constant", "shuffled", "public", "order")


def twins() -> dict[str, Callable[[Path, np.random.Generator], None]]:
    """Return the function that writes the raw files, by task."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("twins_*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= module.TWINS
    return found


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    with open_sandboxes(TASK_PYTHON) as sandboxes:
        yield sandboxes


def test_every_task_has_a_twin() -> None:
    assert sorted(twins()) == sorted(NAMES) and len(NAMES) == 19


@pytest.mark.parametrize("name", NAMES)
def test_oracles_have_nothing_against_it(name: str, tmp_path: Path, sandboxes: Sandboxes) -> None:
    raw = tmp_path / "raw" / name
    raw.mkdir(parents=True)
    twins()[name](raw, np.random.default_rng(0))
    entry = entries()[name]
    # The best score is that of the real data; seeds are tried elsewhere; a machine may have two cores.
    limits = replace(entry.limits, num_threads=1)
    entry = replace(entry, m_best=OPTIMUM[entry.direction], noise=entry.noise or 0.0, limits=limits)
    python = Path(sys.executable) if entry.needs else TASK_PYTHON
    prepare_all([entry], tmp_path / "data", python, raw.parent, say=lambda _: None)
    task = load_entry(entry, tmp_path / "data")
    # Made-up photos are easy: some first scripts make no mistake, and would leave no way to the best score.
    case = Case(task if task.is_better(task.m_best, task.m_init) else replace(task, m_init=0.5), sandboxes)
    # The task environment, which the sandboxes show, has no torch.
    oracles = TABLES if entry.needs else (*TABLES, "initial script")
    assert set(oracles) <= set(ORACLES)
    found = [ask(oracle, case) for oracle in oracles]
    assert [f"{verdict.oracle}: {verdict.finding}" for verdict in found if not verdict.passed] == []
