"""Initial scripts of pandas and scikit-learn, run where both are imported already: as a process each takes seconds."""

import runpy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.feedback import validation_score
from tasks.grading import grade
from tasks.task import Task


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys) -> Callable[[Task], Task]:
    """Return a task with the scores of its initial script, as measured by preparation."""

    def run(task: Task) -> Task:
        folder = tmp_path / "script"
        folder.mkdir()
        for path in task.public.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / "train.py").write_text(task.script)
        monkeypatch.chdir(folder)
        runpy.run_path("train.py")
        validation = validation_score(capsys.readouterr().out)
        assert validation is not None
        return replace(task, m_init=grade(task, (folder / "submission.csv").read_bytes()), validation_init=validation)

    return run
