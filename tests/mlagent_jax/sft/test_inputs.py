"""The trajectories that are learnt from and held out, and their tokens."""

from pathlib import Path

import pytest

from mlagent_jax.configuration.schema import SFT, Config
from mlagent_jax.sft import inputs
from mlagent_jax.sft.data import Dataset
from rollout.types import Trajectory
from tasks.naming import WORDS
from tasks.system_text import system_text

from ...conftest import one_action_trajectories

SYSTEM = system_text("brief", 100)


@pytest.fixture
def trajectories() -> list[Trajectory]:
    return one_action_trajectories(10)


def test_no_trajectory_is_learnt_from_and_held_out(trajectories: list[Trajectory], tmp_path: Path) -> None:
    config = Config(sft=SFT(max_length=400, wordings=1, num_epochs=1.5))
    wordings = inputs.wordings_of(trajectories, config.sft.wordings, config.seed)
    tokenizer = inputs.make_tokenizer(tmp_path, SYSTEM, wordings, 2304, None)
    data = inputs.load_data(config.sft, config.seed, tokenizer, wordings, [number in (3, 8) for number in range(10)])

    def words(dataset: Dataset) -> list[str]:
        texts = [tokenizer.decode(dataset.row(index).tokens) for index in range(len(dataset.rows))]
        return [word for text in texts for word in WORDS[:10] if f"Predict the {word}." in text]

    train, validation = words(data.train), words(data.validation)
    assert set(validation) == {WORDS[3], WORDS[8]} and len(validation) == 2
    assert set(train) == {trajectory.trajectory_id for trajectory in trajectories} - set(validation)
    assert len(train) >= 12 and max(train.count(word) for word in train) == 2  # a pass and a half over eight


def test_checkpoint_without_a_tokenizer_is_refused(trajectories: list[Trajectory], tmp_path: Path) -> None:
    wordings = inputs.wordings_of(trajectories, 6, seed=0)
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file; model\.path needs the tokenizer beside"):
        inputs.make_tokenizer(tmp_path / "tokenizer", SYSTEM, wordings, 2304, checkpoint=tmp_path)


def test_data_of_which_nothing_fits_are_refused(trajectories: list[Trajectory], tmp_path: Path) -> None:
    config = Config(sft=SFT(max_length=20, wordings=1))
    wordings = inputs.wordings_of(trajectories, config.sft.wordings, config.seed)
    tokenizer = inputs.make_tokenizer(tmp_path, SYSTEM, wordings, 2304, None)
    with pytest.raises(
        ValueError, match=r"no rows for training: 9 sequences, none with a turn within sft\.max_length=20"
    ):
        inputs.load_data(config.sft, config.seed, tokenizer, wordings, [not number for number in range(10)])
