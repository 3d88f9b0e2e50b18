"""A run checks its tasks before anything else starts."""

import sys
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.run.context import count_episodes, prepare
from mlagent_jax.tracking.progress import Reporter

FILES = {
    "task.yaml": "name: toy\nkind: tabular-regression\nsplit: held_in\nmetric: mae\ndirection: minimize\n"
    "m_best: {m_best}\nm_best_source: made up\ndata: made up\n",
    "problem.md": "Guess.\n",
    "prepare.py": "def prepare(raw, public, private):\n"
    "    (public / 'test.csv').write_text('id\\n1\\n')\n"
    "    (private / 'answers.csv').write_text('id,target\\n1,2\\n')\n",
    "train.py": "print('validation mae: 1.0')\nopen('submission.csv', 'w').write('id,target\\n1,3\\n')\n",
}


@pytest.mark.parametrize("m_best", [0.5, 1.0, 7.0])
def test_a_best_score_that_is_none_ends_a_run_before_it_begins(tmp_path: Path, m_best: float) -> None:
    folder = tmp_path / "own" / "toy"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("{m_best}", str(m_best)))
    config = load_config(None, ["tasks.held_in=[toy]", "tasks.held_out=[]", f"tasks.paths=[{folder.parent}]"])
    reporter = Reporter()
    if m_best < 1.0:
        assert prepare(config.tasks, tmp_path / "data", Path(sys.executable), reporter)["toy"].m_init == 1.0
        return
    said = f"task toy: m_best is {m_best:g}, but its initial script scores 1 .mae, minimize.; state a better m_best"
    with pytest.raises(ConfigError, match=said):
        prepare(config.tasks, tmp_path / "data", Path(sys.executable), reporter)


def test_there_are_enough_episodes_for_all_requests_of_an_endpoint() -> None:
    ours = ["expert={kind: endpoint, base_url: http://a/v1, model: m, max_concurrent: 30}", "sft.wordings=1"]
    config = load_config(None, ours)
    assert count_episodes(2, config.expert, config.coder) == 30
    assert count_episodes(20, config.expert, config.coder) == 40
    without = load_config(None, ["expert.max_concurrent=30"])
    assert count_episodes(2, without.expert, without.coder) == 4  # nobody is behind it
