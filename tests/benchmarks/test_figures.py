"""The arithmetic of the speed benchmarks by hand-made numbers, and that they refuse to compare what differs."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.figures import compare
from benchmarks.hf_io import Case, cases, ratios
from benchmarks.sft_compare import Unequal, Variant, finalists, last_line, require_equal, summarize, variants
from benchmarks.sft_rows import load_of, make_batches
from benchmarks.sft_shapes import SHAPES, Load, known_peak, training_flops, utilization
from benchmarks.worker import Worker, WorkerFailed
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.packed_batch import RowBuilder, stack_rows
from mlagent_jax.model.transformer import Transformer

SMALL = Qwen2Config(5, 2, 3, 1, 1, 1, 2)  # V, D, F, L, N, K, H


def test_arithmetic_of_a_step_by_hand() -> None:
    # q, k, v and o are 2 x 2 each, the feed-forward three times 2 x 3: 34 parameters; the head is 5 x 2
    load = Load(tokens=10, targets=4, pairs=55)
    assert training_flops(SMALL, load) == 6 * (34 * 10 + 10 * 4) + 12 * 2 * 55 == 3600
    assert utilization(SMALL, load, seconds=2.0, peak=3600.0) == 0.5


@pytest.mark.parametrize("shape", ["quickstart", "smollm2", "qwen2.5-0.5b"])
def test_a_causal_sequence_needs_6_flops_a_matrix_parameter_and_6_l_t_n_h_a_token(shape: str) -> None:
    network, t = SHAPES[shape].network, 4096
    state = nnx.state(nnx.eval_shape(lambda: Transformer(network, nnx.Rngs(0))), nnx.Param)
    sizes = {path[-1]: leaf.size for path, leaf in nnx.to_flat_state(state)}
    matrices = sum(size for name, size in sizes.items() if name.endswith("_proj")) + sizes["embed_tokens"]
    expected = 6 * matrices + 6 * network.num_layers * t * network.num_heads * network.head_dim
    found = training_flops(network, Load(tokens=t, targets=t, pairs=t * t // 2)) / t
    assert found == pytest.approx(expected, rel=1e-12)


def test_padding_and_other_sequences_are_no_load() -> None:
    row = RowBuilder()
    for tokens in ([1, 2, 3], [4, 5]):
        row.add(tokens)
    row.predict(0, 2)
    assert load_of([stack_rows([row, RowBuilder()], 8, 2)]) == Load(tokens=5, targets=1, pairs=1 + 2 + 3 + 1 + 2)


def test_shape_called_quickstart_is_the_quickstarts() -> None:
    shape, config = SHAPES["quickstart"], load_config()
    network, model = shape.network, config.model
    assert (network.num_layers, network.hidden_size, network.intermediate_size, network.num_heads) == (
        (model.num_layers, model.hidden_size, model.intermediate_size, model.num_heads)
    )
    assert (network.vocab_size, network.num_kv_heads) == (config.tokenizer.vocab_size, model.num_kv_heads)
    assert (shape.batch_size, shape.length) == (config.sft.batch_size, config.sft.max_length)


@pytest.mark.parametrize("shape", ["quickstart", "smollm2", "tiny"])
def test_batches_of_a_pass_share_a_shape_and_agents_turns_are_under_half(shape: str) -> None:
    batches = make_batches(SHAPES[shape], 3)
    assert len({tuple(np.shape(leaf) for leaf in jax.tree.leaves(rows)) for rows in batches}) == 1
    load = load_of(batches)
    assert 0.3 < load.targets / load.tokens < (0.5 if shape == "quickstart" else 0.8)


def test_ratio_is_of_the_medians_and_its_spread_of_the_pairs() -> None:
    assert compare([1.0, 2.0, 4.0], [4.0, 2.0, 4.0]) == {"ratio": 2.0, "ratio_low": 1.0, "ratio_high": 4.0}


def test_known_peaks_are_of_bf16_only() -> None:
    assert known_peak("NVIDIA H200", "bfloat16") == 989e12
    assert known_peak("NVIDIA H200", "float32") is None and known_peak("cpu", "bfloat16") is None


@pytest.mark.parametrize("changed", [{"loss": 2.0003}, {"gradient_norm": 0.9998}, {"loss": float("nan")}])
def test_sides_that_differ_are_not_compared(changed: dict[str, float]) -> None:
    ours = [{"loss": 2.0, "gradient_norm": 1.0}] * 2
    require_equal(ours, [{"loss": 2.0001, "gradient_norm": 0.99995}] * 2, 1e-4, "near")
    with pytest.raises(Unequal, match=f"far: {next(iter(changed))} of step 1 .* nothing is reported"):
        require_equal(ours, [ours[0], ours[1] | changed], 1e-4, "far")


def test_the_peer_is_its_fastest_variant_that_runs() -> None:
    tried = variants("bfloat16", peer=True)
    for variant, seconds in zip(tried, [3.0, 2.0, 4.0, 9.0, 8.0, None, 7.0, None, None, 6.0, 5.0, None], strict=False):
        variant.best_seconds = seconds
    chosen = finalists(tried)
    assert chosen["ours"].settings["remat"] == "matmuls" and chosen["ours"].best_seconds == 2.0
    assert (chosen["peer"].best_seconds, chosen["peer"].settings["weights"]) == (5.0, "bfloat16")
    assert chosen["peer_fp32_weights"].best_seconds == 7.0
    nothing = [Variant("ours", "step", {}, best_seconds=1.0), Variant("peer", "eager", {}, error="no memory")]
    with pytest.raises(WorkerFailed, match="no variant of peer ran: no memory"):
        finalists(nothing)


def test_figures_of_a_comparison_by_hand() -> None:
    network = SHAPES["tiny"].network
    load = Load(tokens=100, targets=40, pairs=1000)
    ours = Variant("ours", "step", {}, seconds=[0.5, 0.4, 0.6])
    peer = Variant("peer", "eager", {"weights": "float32"}, seconds=[1.0, 1.2, 0.6])
    peak = 10 * training_flops(network, load)
    figures = summarize("tiny", load, {"ours": ours, "peer": peer, "peer_fp32_weights": peer}, peak)
    assert figures["finalists"]["ours"]["tokens_per_second"] == 200.0
    assert figures["finalists"]["ours"]["utilization"] == pytest.approx(0.2)
    line = last_line({"shape": "tiny", "dtype": "float32", "device": "cpu"} | figures)
    assert (line["ratio"], line["ratio_low"], line["ratio_high"]) == (2.0, 1.0, 3.0)
    assert line["peer_tokens_per_second"] == 100.0
    alone = last_line(
        {"shape": "tiny", "dtype": "float32", "device": "cpu"} | summarize("tiny", load, {"ours": ours}, peak)
    )
    assert alone["ratio"] is None and alone["ours_tokens_per_second"] == 200.0


def test_files_are_compared_with_the_fastest_and_with_the_fastest_to_the_same_dtype() -> None:
    found = cases("load", "bfloat16")
    for case in found:
        case.peaks = [1.0]
        case.seconds = [2.0] if case.side == "ours" else [3.0] if case.held == "float32" else [1.0]
    found[1].seconds, found[1].error = [], "does not run"
    figures = ratios(found)["load_bfloat16"]
    assert (figures["ratio"], figures["ratio_same_result"]) == (0.5, 1.5)
    with pytest.raises(WorkerFailed, match="no way of the peer's runs: does not run"):
        ratios([found[0], Case("load", "bfloat16", "peer", "float32", error="does not run")])


def test_worker_says_in_one_line_what_failed_and_that_it_ended(tmp_path: Path) -> None:
    module = tmp_path / "echoing.py"
    lines = ["import os", "from benchmarks.worker import serve", "def fail():", "    raise ValueError('two\\nlines')"]
    serving = "serve({'echo': lambda x: print('noise') or x, 'fail': fail, 'die': lambda: os._exit(3)})"
    module.write_text("\n".join([*lines, serving]))
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{tmp_path}:{root}"}
    with Worker("echoing", log=tmp_path / "log", environment=environment) as worker:
        assert worker.ask("echo", x=[1, 2]) == [1, 2]
        with pytest.raises(WorkerFailed, match="^ValueError: two lines$"):
            worker.ask("fail")
        assert worker.ask("echo", x="still there") == "still there"
        with pytest.raises(WorkerFailed, match="ended with status 3 at 'die': noise"):
            worker.ask("die")
        assert not worker.alive()
    assert (tmp_path / "log").read_text() == "noise\nnoise\n"
