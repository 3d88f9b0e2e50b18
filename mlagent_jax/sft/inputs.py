"""What fine-tuning begins with: the tellings of the trajectories, the tokenizer, the rows."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.config import Config
from mlagent_jax.rows import Bucket
from mlagent_jax.sft.data import Dataset, bucket_of, pack
from rollout.augment import variants
from rollout.chat import ChatTokenizer, train_tokenizer
from rollout.types import Trajectory
from rollout.wording import reword
from tasks.naming import vocabulary_text
from tasks.prompt import messages
from tasks.state import State

NAME_COUNT = 40  # how often every file name is put to a fresh tokenizer, so that each becomes few tokens
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Data:
    """What is trained on, and what the held-out perplexity is taken on; no trajectory is in both."""

    train: Dataset
    heldout: Dataset
    bucket: Bucket


def make_tokenizer(config: Config, folder: Path, told: Sequence[Sequence[State]]) -> ChatTokenizer:
    """Returns the policy's tokenizer, and leaves it in `folder`: the checkpoint's, or one trained on all tellings."""
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


def tell(config: Config, trajectories: Sequence[Trajectory]) -> list[list[State]]:
    """Returns every trajectory in `sft.wordings` wordings, the recorded one first."""
    return [variants(trajectory, config.sft.wordings, config.seed, reword) for trajectory in trajectories]


def load_data(config: Config, tokenizer: ChatTokenizer, told: Sequence[Sequence[State]]) -> Data:
    """Returns the rows of training, epoch after epoch, and those of the held-out perplexity.

    Raises:
        ValueError: if there are none of either.
    """
    sft = config.sft
    num_heldout = max(1, round(sft.heldout_share * len(told)))
    order = random.Random(f"{config.seed}/sft/split").sample(range(len(told)), len(told))
    heldout = [state for index in order[:num_heldout] for state in told[index][:2]]
    train = [state for index in order[num_heldout:] for state in told[index]]
    train_set = pack(train, tokenizer, sft.max_length, config.seed, sft.num_epochs)
    heldout_set = pack(heldout, tokenizer, sft.max_length, config.seed)
    for name, dataset in (("training", train_set), ("the held-out perplexity", heldout_set)):
        if not dataset.rows:
            raise ValueError(
                f"no rows for {name}: {len(dataset.sizes)} tellings, none with a turn within "
                f"sft.max_length={sft.max_length}; raise it, or collect more trajectories"
            )
    return Data(train_set, heldout_set, bucket_of([train_set, heldout_set], sft.max_length))
