"""What fine-tuning begins with: the tellings of the trajectories, the tokenizer, the rows."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.packed_batch import BatchShape
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.sft.data import Dataset, batch_shape_of, pack
from rollout.dataset.augmentation import variants
from rollout.dataset.selection import Selection, choose, write_selection
from rollout.scripted.wording import reword
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from rollout.types import Trajectory
from tasks.naming import vocabulary_text
from tasks.prompt import messages
from tasks.registry import entries
from tasks.state import State

NAME_COUNT = 40  # how often every file name is put to a fresh tokenizer, so that each becomes few tokens
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Data:
    """What is trained on, and what the held-out perplexity is taken on; no trajectory is in both."""

    train: Dataset
    validation: Dataset
    bucket: BatchShape


def make_tokenizer(config: Config, folder: Path, told: Sequence[Sequence[State]]) -> ChatTokenizer:
    """Return the policy's tokenizer, and leaves it in `folder`: the checkpoint's, or one trained on all tellings."""
    if config.model.path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            source = Path(config.model.path) / name
            if not source.is_file():
                raise ValueError(f"{source}: no such file; model.path needs the tokenizer beside the weights")
            shutil.copyfile(source, folder / name)
    else:
        texts = [message["content"] for states in told for state in states for message in messages(state)]
        texts += [vocabulary_text()] * NAME_COUNT
        train_tokenizer(texts, folder, config.tokenizer.vocab_size)
    return ChatTokenizer(folder)


def select(config: Config, run_dir: RunDir) -> Selection:
    """Return which of the collected trajectories are trained on, and leaves that in selection.json.

    Raises:
        CorruptRecord: if a trajectory file is damaged.
        ValueError: if too few are left.
    """
    directions = {name: entry.direction for name, entry in entries(config.tasks.paths).items()}
    selection = choose(run_dir.path("trajectories"), config.select, directions, config.seed)
    write_selection(run_dir.selection, selection, config.select, config.seed)
    return selection


def tell(config: Config, trajectories: Sequence[Trajectory]) -> list[list[State]]:
    """Return every trajectory in `sft.wordings` wordings, the recorded one first."""
    return [variants(trajectory, config.sft.wordings, config.seed, reword) for trajectory in trajectories]


def load_data(
    config: Config, tokenizer: ChatTokenizer, told: Sequence[Sequence[State]], is_validation: Sequence[bool]
) -> Data:
    """Return the rows of training, epoch after epoch, and those of the held-out perplexity.

    Args:
        config: of the run.
        tokenizer: the policy's.
        told: the tellings of each trajectory.
        is_validation: which of these are not trained on.

    Raises:
        ValueError: if there are no rows of either.
    """
    sft = config.sft
    validation = [state for states, held in zip(told, is_validation, strict=True) if held for state in states[:2]]
    train = [state for states, held in zip(told, is_validation, strict=True) if not held for state in states]
    train_set = pack(train, tokenizer, sft.max_length, config.seed, sft.num_epochs)
    validation_set = pack(validation, tokenizer, sft.max_length, config.seed)
    for name, dataset in (("training", train_set), ("the validation perplexity", validation_set)):
        if not dataset.rows:
            raise ValueError(
                f"no rows for {name}: {len(dataset.sizes)} tellings, none with a turn within "
                f"sft.max_length={sft.max_length}; raise it, or collect more trajectories"
            )
    return Data(train_set, validation_set, batch_shape_of([train_set, validation_set], sft.max_length))
