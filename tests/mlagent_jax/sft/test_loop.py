"""An interrupted fine-tuning resumes to the same bits, and keeps the parameters with the best validation loss."""

import gc
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
from mlagent_jax.configuration.schema import Config
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
from mlagent_jax.training.finite import NotFinite
from mlagent_jax.training.saved_policy import canary_logprobs, save_policy
from mlagent_jax.training.train_state import TrainState, make_state
from rollout.inference.canary_file import read_canary
from rollout.inference.weight_files import check_digests
from rollout.tokenizer.chat import Rendering

STEPS = 20


class Watched(Reporter):
    """A reporter that calls a function with the number of each step, when it has reported the step."""

    def __init__(self, watch: Callable[[int], None]) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.watch = watch

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Bar]:
        with super().bar(label, total, done) as bar:
            yield _WatchedBar(bar, self.watch)


class _WatchedBar(Bar):
    def __init__(self, bar: Bar, watch: Callable[[int], None]) -> None:
        self.bar, self.watch = bar, watch

    def update(self, done: int, figures: Any = None) -> None:
        self.bar.update(done, figures)
        self.watch(done)


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


def data_of(train_seed: int, validation_seed: int, num_steps: int = STEPS, per_row: int = 1) -> inputs.Data:
    """Returns rows of noisy counting, forward or backward by the seed, `per_row` trajectories in a row."""

    def rows(seed: int, count: int) -> Dataset:
        rng = np.random.default_rng(seed)
        made = []
        for _ in range(count):
            step = 1 if seed % 2 else -1
            tokens = (rng.integers(64) + step * np.arange(12) + rng.integers(0, 2, 12)) % 64
            made.append(Rendering(tokens.tolist(), [(1, 12)]))
        planned = tuple(tuple(range(first, first + per_row)) for first in range(0, count, per_row))
        return Dataset(made.__getitem__, tuple(size_of(one, 12) for one in made), planned)

    train, validation = rows(train_seed, 2 * num_steps), rows(validation_seed, 3 * per_row)
    return inputs.Data(train, validation, batch_shape_of([train, validation], 12 * per_row))


def config_of(**settings: Any) -> Config:
    default = {"batch_size": 2, "max_length": 12, "learning_rate": 5e-2, "warmup_steps": 2}
    return replace(load_config(), sft=replace(load_config().sft, **default | settings))


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
        mesh = make_mesh(1, 1, 1, 1)
        reporter = Watched(lambda done: signal.raise_signal(number) if done == interrupt_at else None)
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

        def recorded(state: TrainState, rows: PackedBatch, frozen: PyTree) -> tuple[TrainState, dict[str, jax.Array]]:
            batches.append(np.asarray(rows.tokens).tobytes())
            return step(state, rows, frozen)

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


def test_a_step_has_as_many_trajectories_as_the_batch_size_says_not_as_many_rows(
    make_model: Callable[..., Transformer], tmp_path: Path, fed: list[bytes]
) -> None:
    data = data_of(1, 3, num_steps=12, per_row=3)  # 24 trajectories in 8 rows
    ended = train(make_model(), tmp_path, data, config_of(batch_size=6, max_length=36, eval_every=2))
    assert ended.figures["steps"] == len(fed) == 4
    assert {len(tokens) for tokens in fed} == {2 * 36 * np.dtype(np.int32).itemsize}


def test_resumed_training_holds_no_more_arrays_than_a_new_one(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    config, data = config_of(eval_every=5, patience=100), data_of(1, 3, STEPS)
    mesh, measured = make_mesh(1, 1, 1, 1), []

    def num_bytes() -> int:
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    for stop in (10, None):
        model, found = make_model(), list[int]()
        reporter = Watched(lambda done, found=found: found.append(num_bytes()))
        before = num_bytes()
        with Checkpoints(tmp_path / "checkpoints") as checkpoints, JsonlTracker(tmp_path / "metrics.jsonl") as tracker:
            sft = replace(config.sft, max_steps=stop or STEPS)
            loop.fine_tune(model, data, sft, config.optimizer_state, mesh, checkpoints, tracker, reporter)
        measured.append(max(found) - before)
        del model
    assert measured[1] <= measured[0]


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
    for num_micro_batches in (1, 2):
        evaluate = make_sft_eval(nnx.split(model)[0], num_micro_batches)
        kept = loop.validation_loss(evaluate, parameters_of(model), data, 2, make_mesh(1, 1, 1, 1))
        assert kept == pytest.approx(readings[best], rel=1e-5)
    with pytest.raises(KeyboardInterrupt):  # when the best is past, but not yet found to be
        train(make_model(), tmp_path / "cut", data, config, interrupt_at=best + 3)
    resumed = train(make_model(), tmp_path / "cut", data, config)
    assert (resumed.figures, resumed.metrics) == (ended.figures, ended.metrics)
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, ended.parameters)


def test_loss_that_is_not_finite_is_named_with_its_step_and_the_checkpoint_to_go_on_from(
    make_model: Callable[..., Transformer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(eval_every=4)
    whole = train(make_model(), tmp_path / "whole", data_of(1, 3), config)
    advance = loop.Progress.advance

    def poisoned(progress: loop.Progress, *arguments: Any) -> float:
        if int(progress.state.step) == 8:
            parameters = jax.tree.map(lambda leaf: leaf * float("nan"), progress.state.parameters)
            progress.state = progress.state._replace(parameters=parameters)
        return advance(progress, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "advance", poisoned)
        with pytest.raises(FloatingPointError, match=r"loss became nan in step 9, .* from \S+/8, or lower sft"):
            train(make_model(), tmp_path / "run", data_of(1, 3), config)
    resumed = train(make_model(), tmp_path / "run", data_of(1, 3), config)
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, whole.parameters)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_no_figure_of_a_step_may_be_no_number(name: str) -> None:
    progress = loop.Progress(TrainState({}, {}, np.int32(0)), {})
    figures = {"loss": np.float32(1.0), "gradient_norm": np.float32(2.0)}
    assert progress.advance(lambda state, rows, frozen: (state, figures), lambda: None) == 1.0
    broken = figures | {name: np.float32("inf")}
    with pytest.raises(NotFinite, match=f"{name} became inf"):
        progress.advance(lambda state, rows, frozen: (state, broken), lambda: None)


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
