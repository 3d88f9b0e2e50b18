"""An interrupted fine-tuning resumes to the same bits, and keeps the parameters with the best validation loss."""

import io
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jaxtyping import PyTree
from rich.console import Console

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import SFT, Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import make_mesh, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.preemption import Saved
from mlagent_jax.run.mirror import Mirror
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.sft import inputs, loop
from mlagent_jax.sft.configured import sft_optimizer
from mlagent_jax.sft.data import Dataset, batch_shape_of
from mlagent_jax.sft.packing import size_of
from mlagent_jax.sft.step import SFTStep, make_sft_eval
from mlagent_jax.tracking.jsonl import JsonlTracker, read_metrics
from mlagent_jax.tracking.progress import Bar, Reporter
from mlagent_jax.train import signals_as_interrupts
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.saved_policy import canary_logprobs, save_policy
from mlagent_jax.training.train_state import TrainState, make_state
from rollout.inference.canary_file import read_canary
from rollout.inference.weight_files import check_digests
from rollout.tokenizer.chat import Rendering
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import WORDS, Names
from tasks.system_text import system_text

STEPS = 20
SYSTEM = system_text("brief", 100)


class Stopping(Reporter):
    """A reporter at which Ctrl-C is pressed, or another signal comes, after some step."""

    def __init__(self, at: int | None, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.at, self.number = at, number

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Bar]:
        with super().bar(label, total, done) as bar:
            yield _StoppingBar(bar, self.at, self.number)


class _StoppingBar(Bar):
    def __init__(self, bar: Bar, at: int | None, number: signal.Signals) -> None:
        self.bar, self.at, self.number = bar, at, number

    def update(self, done: int, figures: Any = None) -> None:
        self.bar.update(done, figures)
        if done == self.at:
            signal.raise_signal(self.number)


@dataclass
class Ended:
    """The results of a training: its figures, its policy and its metrics without times."""

    figures: dict[str, Any]
    parameters: PyTree
    metrics: list[dict[str, float]]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets every run here find the programs of the first."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def data_of(train_seed: int, validation_seed: int, num_steps: int = STEPS) -> inputs.Data:
    """Returns rows of noisy counting, forward or backward by the seed."""

    def rows(seed: int, count: int) -> Dataset:
        rng = np.random.default_rng(seed)
        made = []
        for _ in range(count):
            step = 1 if seed % 2 else -1
            tokens = (rng.integers(64) + step * np.arange(12) + rng.integers(0, 2, 12)) % 64
            made.append(Rendering(tokens.tolist(), [(1, 12)]))
        return Dataset(made.__getitem__, tuple(size_of(one, 12) for one in made), tuple((i,) for i in range(count)))

    train, validation = rows(train_seed, 2 * num_steps), rows(validation_seed, 3)
    return inputs.Data(train, validation, batch_shape_of([train, validation], 12))


def config_of(**settings: Any) -> Config:
    settings |= {"batch_size": 2, "max_length": 12, "learning_rate": 5e-2, "warmup_steps": 2}
    return replace(load_config(), sft=replace(load_config().sft, **settings))


def train(
    model: Transformer,
    folder: Path,
    data: inputs.Data,
    config: Config,
    interrupt_at: int | None = None,
    number: signal.Signals = signal.SIGINT,
    mirror: Path | None = None,
) -> Ended:
    folder.mkdir(exist_ok=True)
    run_dir = RunDir(folder, Mirror(mirror.as_uri(), folder) if mirror else None)
    if run_dir.mirror:
        run_dir.mirror.pull()
    with signals_as_interrupts():
        reporter, mesh = Stopping(interrupt_at, number), make_mesh(1, 1, 1, 1)
        saving = Checkpoints(run_dir.sft_checkpoints, saved=run_dir.sync_remote)
        with saving as checkpoints, JsonlTracker(run_dir.metrics) as tracker:
            parts = config.sft, config.optimizer_state
            figures = loop.fine_tune(model, data, *parts, mesh, checkpoints, tracker, reporter)
    metrics = read_metrics(folder / "metrics.jsonl")
    for line in metrics:
        del line["time/run_seconds"]
    del figures["tokens_per_second"]
    return Ended(figures, jax.tree.map(np.asarray, parameters_of(model)), metrics)


def checkpoint_arrays(folder: Path, make_model: Callable[..., Transformer], config: Config) -> PyTree:
    """Returns parameters, optimizer state and best parameters of the newest checkpoint."""
    optimizer = sft_optimizer(config.sft, config.optimizer_state, STEPS)
    state = make_state(make_model(seed=9), optimizer, make_mesh(1, 1, 1, 1))
    with Checkpoints(folder / "sft" / "checkpoints") as checkpoints:
        found = checkpoints.latest({"state": state, "best": state.parameters})
    assert found is not None
    return found[0]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The tokens of every batch that a step is given, from here on."""
    batches: list[bytes] = []

    def configured_step(*arguments: Any) -> SFTStep:
        step = make_real_step(*arguments)

        def recorded(state: TrainState, rows: PackedBatch) -> tuple[TrainState, dict[str, jax.Array]]:
            batches.append(np.asarray(rows.tokens).tobytes())
            return step(state, rows)

        return recorded

    make_real_step = loop.configured_step
    monkeypatch.setattr(loop, "configured_step", configured_step)
    return batches


def test_interrupted_and_resumed_is_bit_identical_to_uninterrupted(
    make_model: Callable[..., Transformer], tmp_path: Path, fed: list[bytes]
) -> None:
    num_steps, every = 100, 15
    config, data = config_of(eval_every=every, patience=100), data_of(1, 3, num_steps)
    whole = train(make_model(), tmp_path / "whole", data, config)
    order = [*fed]
    assert len(set(order)) == num_steps
    # before the first checkpoint, then twice between two, just before one is written, just after, near the end
    for at, start in ((4, 0), (20, 0), (24, 15), (45, 15), (46, 30), (99, 45)):
        fed.clear()
        with pytest.raises(KeyboardInterrupt):
            train(make_model(), tmp_path / "cut", data, config, interrupt_at=at)
        assert fed == order[start:at]
    fed.clear()
    resumed = train(make_model(), tmp_path / "cut", data, config)
    assert fed == order[90:]
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, whole.parameters)
    assert resumed.metrics == whole.metrics  # held-out figures too
    assert [line["sft/step"] for line in whole.metrics] == list(range(1, num_steps + 1))
    assert resumed.figures == whole.figures
    found, expected = (checkpoint_arrays(tmp_path / name, make_model, config) for name in ("cut", "whole"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert whole.metrics[-1]["sft/loss"] < whole.metrics[0]["sft/loss"]
    fed.clear()
    again = train(make_model(), tmp_path / "whole", data, config)  # everything is done: nothing changes
    assert not fed and (again.figures, again.metrics) == (whole.figures, whole.metrics)
    jax.tree.map(np.testing.assert_array_equal, again.parameters, whole.parameters)


@pytest.mark.slow
def test_sigterm_saves_after_its_step_and_the_resumed_run_is_bit_identical(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    config, data = config_of(eval_every=3), data_of(1, 3)
    whole = train(make_model(), tmp_path / "whole", data, config)
    for at, kept in ((5, {"3", "5"}), (6, {"5", "6"})):  # between two readings of the held-out perplexity, and at one
        with pytest.raises(Saved):
            train(make_model(), tmp_path / "cut", data, config, interrupt_at=at, number=signal.SIGTERM)
        assert {path.name for path in (tmp_path / "cut" / "sft" / "checkpoints").iterdir()} == kept
    resumed = train(make_model(), tmp_path / "cut", data, config)
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, whole.parameters)
    assert resumed.metrics == whole.metrics and resumed.figures == whole.figures


@pytest.mark.slow
def test_another_machine_goes_on_from_the_mirror_as_if_nothing_had_happened(
    make_model: Callable[..., Transformer], tmp_path: Path, fed: list[bytes]
) -> None:
    config, data = config_of(eval_every=3), data_of(1, 3)
    whole = train(make_model(), tmp_path / "whole", data, config)
    bucket = tmp_path / "bucket"
    for machine, at, number, error in (
        ("first", 5, signal.SIGINT, KeyboardInterrupt),  # the copy is of step 3
        ("second", 5, signal.SIGTERM, Saved),
        ("third", 8, signal.SIGINT, KeyboardInterrupt),
    ):
        with pytest.raises(error):
            train(make_model(), tmp_path / machine, data, config, at, number, bucket)
        shutil.rmtree(tmp_path / machine)
    fed.clear()
    resumed = train(make_model(), tmp_path / "last", data, config, mirror=bucket)
    assert len(fed) == STEPS - 6
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, whole.parameters)
    assert resumed.metrics == whole.metrics and resumed.figures == whole.figures


def test_training_ends_when_validation_gets_worse_and_the_best_is_kept(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    config = config_of(eval_every=1, patience=2)
    data = data_of(train_seed=1, validation_seed=2)  # counts the other way
    model = make_model()
    ended = train(model, tmp_path / "run", data, config)
    readings = [line["sft/validation_loss"] for line in ended.metrics]
    best = int(np.argmin(readings))
    assert len(readings) == best + 3 < STEPS
    assert ended.figures["steps"] == len(readings)
    assert ended.figures["validation_loss"] == readings[best]
    assert ended.figures["validation_perplexity"] == pytest.approx(np.exp(readings[best]))
    evaluate = make_sft_eval(nnx.split(model)[0])
    kept = loop.validation_loss(evaluate, parameters_of(model), data, 2, make_mesh(1, 1, 1, 1))
    assert kept == pytest.approx(readings[best], rel=1e-5)
    with pytest.raises(KeyboardInterrupt):  # when the best is past, but not yet found to be
        train(make_model(), tmp_path / "cut", data, config, interrupt_at=best + 3)
    resumed = train(make_model(), tmp_path / "cut", data, config)
    assert (resumed.figures, resumed.metrics) == (ended.figures, ended.metrics)
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, ended.parameters)


def test_loss_that_is_not_finite_is_named_with_its_step(make_model: Callable[..., Transformer], tmp_path: Path) -> None:
    model = make_model()
    model.norm[...] = model.norm[...] * float("nan")
    with pytest.raises(FloatingPointError, match="loss became nan at step 1; lower sft.learning_rate"):
        train(model, tmp_path / "run", data_of(1, 3), config_of())


def test_saved_policy_stands_beside_its_tokenizer(make_model: Callable[..., Transformer], tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.tokenizer.mkdir()
    (run_dir.tokenizer / "tokenizer.json").write_text("{}")
    run_dir.selection.write_text("{}\n")
    model = make_model()
    save_policy(model, tmp_path / "model", run_dir.tokenizer, run_dir.selection, [3, 1, 4, 1, 5])
    assert (tmp_path / "model" / "tokenizer.json").read_text() == "{}"
    assert (tmp_path / "model" / "training_data.json").read_text() == "{}\n"
    loaded = load_hf(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, parameters_of(loaded), parameters_of(model))


def test_saved_policy_has_a_canary_of_its_own_weights(make_model: Callable[..., Transformer], tmp_path: Path) -> None:
    run_dir, token_ids = RunDir(tmp_path), [3, 1, 4, 1, 5]
    run_dir.tokenizer.mkdir()
    run_dir.selection.write_text("{}\n")
    save_policy(make_model(), tmp_path / "model", run_dir.tokenizer, run_dir.selection, token_ids)
    canary, digests = read_canary(tmp_path / "model", "float32", max_length=100)
    assert list(canary.token_ids) == token_ids
    loaded = load_hf(tmp_path / "model")
    np.testing.assert_allclose(canary.logprobs, canary_logprobs(loaded, token_ids), rtol=0, atol=1e-6)
    check_digests(tmp_path / "model", digests)
    cut, _ = read_canary(tmp_path / "model", "float32", max_length=3)
    np.testing.assert_allclose(cut.logprobs, canary_logprobs(loaded, token_ids[:3]), rtol=0, atol=1e-6)
    (tmp_path / "model" / "canary.json").unlink()
    with pytest.raises(ValueError, match=r"canary\.json is damaged, or not a canary; .*remove the record of the stage"):
        read_canary(tmp_path / "model", "float32", max_length=100)


@pytest.fixture
def trajectories() -> list[Trajectory]:
    """Ten trajectories of one action each, which differ in a word of their problem."""
    snapshot = Snapshot({}, 0.0, None, "", 0.0)
    feedback = Feedback(Outcome.EDIT, "fine", None)
    words = WORDS[:10]
    return [
        Trajectory(
            trajectory_id=word,
            task="toy",
            seed=0,
            names=Names("project", "train.csv", "test.csv", "train.py"),
            problem=f"Predict the {word}.",
            ideas=(),
            steps=(Step(f"Thought: the {word}.", "Final Answer", {}, feedback, snapshot, snapshot, 0.0),),
            end="final_answer",
        )
        for word in words
    ]


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
