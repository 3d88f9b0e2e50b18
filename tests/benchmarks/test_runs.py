"""The speed benchmarks on a tiny network, with the real sides; and the GPU's with nothing but JAX, Flax and optax."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.hf_io import Case, measure, ratios
from benchmarks.sft_compare import Bench, Unequal, last_line, require_equal, run, to_markdown, variants
from benchmarks.worker import Worker

ROOT = Path(__file__).parents[2]
EAGER = {"dtype": "float32", "weights": "float32", "attention": "mask", "compiled": False}
WITHOUT_MORE = """
import sys
from importlib.machinery import PathFinder
ALLOWED = set('''jax jaxlib numpy scipy ml_dtypes opt_einsum flax msgpack treescope rich pygments markdown_it mdurl yaml
    typing_extensions optax absl etils jaxtyping wadler_lindig mlagent_jax rollout tasks benchmarks'''.split())
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.split('.')[0]
        if top in ALLOWED or top in sys.stdlib_module_names or top.startswith('_'):  # parts of Python's own
            return super().find_spec(name, path, target)
frozen = [finder for finder in sys.meta_path if getattr(finder, '__module__', '') == '_frozen_importlib']
sys.meta_path = [*frozen, Bare]
"""


def bare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python, and what it starts, where only JAX, Flax, optax, jaxtyping and what they need can be imported."""
    (folder / "sitecustomize.py").write_text(WITHOUT_MORE)
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800
    )


def test_network_and_step_need_nothing_but_jax_flax_and_optax(tmp_path: Path) -> None:
    modules = "model.transformer model.logprob model.sharding model.packed_batch".split()
    modules += ["training.optimizer", "training.train_state", "sft.step"]
    names = ", ".join(f"mlagent_jax.{name}" for name in modules)
    done = bare(tmp_path, "-c", f"import {names}, benchmarks.sft_ours, benchmarks.gpu_sft")
    assert done.returncode == 0, done.stderr
    refused = bare(tmp_path, "-c", "import safetensors")
    assert "No module named 'safetensors'" in refused.stderr


@pytest.mark.slow
def test_rehearsal_of_the_gpu_benchmark_runs_without_more(tmp_path: Path) -> None:
    done = bare(tmp_path, "-m", "benchmarks.gpu_sft", "--tiny", "--out", str(tmp_path / "all.json"))
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["peer"], line["ratio"]) == (False, None)
    assert line["shapes"]["tiny"]["ours_tokens_per_second"] > 0
    assert json.loads((tmp_path / "all.json").read_text())["results"]["tiny"]["finalists"]["ours"]["utilization"] > 0


@pytest.mark.slow
def test_sides_agree_on_equal_weights_and_are_refused_on_others(tmp_path: Path) -> None:
    bench = Bench("tiny", tmp_path, 2)
    with bench.worker("ours") as ours, bench.worker("peer") as peer:
        ours.ask("make", peer=True)
        reference = ours.ask("start", dtype="float32", remat="none")
        require_equal(reference, peer.ask("start", **EAGER), 1e-4, "peer")
        weights = tmp_path / "weights" / "model.safetensors"
        tensors = load_file(weights)
        tensors["model.layers.1.mlp.down_proj.weight"] *= 1.05
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(Unequal, match="nothing is reported"):
            require_equal(reference, peer.ask("start", **EAGER), 1e-4, "peer")


@pytest.mark.slow
def test_comparison_runs_from_end_to_end() -> None:
    tried = [v for v in variants("float32", peer=True) if v.side == "ours" or not v.settings["compiled"]]
    found = run("tiny", "float32", 2, 2, tried)
    line = last_line(found)
    assert line["ratio_low"] <= line["ratio"] <= line["ratio_high"]
    errors = {variant["name"]: variant["error"] for variant in found["variants"]}
    assert errors["remat=none"] is errors["eager, mask, float32 weights"] is None
    assert "would mix them" in errors["eager, causal, float32 weights"]
    assert "eager, mask, float32 weights" in to_markdown(found)


@pytest.mark.slow
def test_checkpoint_is_read_and_written_by_both_sides(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "bfloat16"
    with Worker("benchmarks.hf_io_side", "ours", log=log) as worker:
        limit = worker.ask("make", shape="tiny", folder=str(folder), stored="bfloat16", num_files=3)
    assert len(list(folder.glob("*.safetensors"))) >= 3
    found = [
        Case(action, "bfloat16", side, held)
        for action, held in (("load", "float32"), ("save", "bfloat16"))
        for side in ("ours", "peer")
    ]
    for case in found:
        measure(case, folder, log, limit)
        assert case.error is None
    assert set(ratios(found)) == {"load_bfloat16", "save_bfloat16"}
    assert not (tmp_path / "written").exists()
