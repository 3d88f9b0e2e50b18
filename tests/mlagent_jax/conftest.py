"""Eight simulated devices, tiny networks, and the shapes of real Qwen2.5 checkpoints."""

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.model.attention.reference import attention_errors, example_rows, tolerance
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.transformer import Transformer

# Set before the first array is made. Code without a mesh runs on the first device.
jax.config.update("jax_num_cpu_devices", 8)

TINY = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=10_000.0,
    initializer_range=0.2,
    eos_token_id=2,
)

# The config.json files of Qwen/Qwen2.5-0.5B and Qwen/Qwen2.5-7B.
QWEN2_5_0_5B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN2_5_7B: dict[str, Any] = QWEN2_5_0_5B | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}


def _sizes(hidden: int, intermediate: int, num_layers: int, num_heads: int, num_kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": num_layers,
        "max_window_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
    }


# Every released size, with the number of parameters its checkpoint has.
REAL = {
    "0.5B": (QWEN2_5_0_5B, 494_032_768),
    "1.5B": (QWEN2_5_0_5B | _sizes(1536, 8960, 28, 12, 2), 1_543_714_304),
    "3B": (QWEN2_5_0_5B | _sizes(2048, 11008, 36, 16, 2), 3_085_938_688),
    "7B": (QWEN2_5_7B, 7_615_616_512),
    "14B": (QWEN2_5_7B | _sizes(5120, 13824, 48, 40, 8), 14_770_033_664),
    "32B": (QWEN2_5_7B | _sizes(5120, 27648, 64, 40, 8), 32_763_876_352),
    "72B": (QWEN2_5_7B | _sizes(8192, 29568, 80, 64, 8), 72_706_203_648),
}
SMALLER = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_size": 112,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "vocab_size": 96,
}


def _make_model(config: Qwen2Config = TINY, seed: int = 0, mesh: Mesh | None = None) -> Transformer:
    """Return a network with no parameter at a special value: biases are not 0, norms are not 1."""
    rng = np.random.default_rng(seed)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0), mesh=mesh)))

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        mean = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(mean + config.initializer_range * rng.standard_normal(leaf.shape), leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, shapes))


def _rows_of(sequences: Sequence[Sequence[int]], length: int | None = None) -> PackedBatch:
    """Return one padded row per sequence, which predicts each token but the first."""
    rows = []
    for tokens in sequences:
        row = RowBuilder()
        row.add(list(tokens))
        for index in range(len(tokens) - 1):
            row.predict(index, tokens[index + 1])
        rows.append(row)
    longest = max(len(tokens) for tokens in sequences)
    return jax.tree.map(jnp.asarray, stack_rows(rows, length or longest, (length or longest) - 1))


@pytest.fixture(autouse=True, scope="module")
def quick_compiler() -> Iterator[None]:
    """Compile without most optimizations, which cost more than they save on networks this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def _check_attention(attend: Callable[..., jax.Array], layout: str, **settings: Any) -> None:
    """Compare `attend(q, k, v, ends)` and its gradients with the plain formulas."""
    errors = attention_errors(attend, layout, **settings)
    assert all(error <= tolerance(settings.get("dtype", jnp.float32)) for error in errors.values()), errors


def _num_programs(function: Any) -> int:
    """Return the number of programs that a jitted function was compiled to; JAX has no public counter."""
    return function._cache_size()


@contextmanager
def _files_limited_to(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, which fails in the libraries like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def tiny_config() -> Qwen2Config:
    return TINY


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return _make_model


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., PackedBatch]:
    return _rows_of


@pytest.fixture(scope="session")
def check_attention() -> Callable[..., None]:
    return _check_attention


@pytest.fixture(scope="session")
def attention_rows() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return example_rows


@pytest.fixture(scope="session")
def num_programs() -> Callable[[Any], int]:
    return _num_programs


@pytest.fixture(scope="session")
def files_limited_to() -> Callable[[int], AbstractContextManager[None]]:
    return _files_limited_to


@pytest.fixture(scope="session", params=REAL)
def real_config(request: pytest.FixtureRequest) -> tuple[dict[str, Any], int]:
    """A real checkpoint's config.json, and its number of parameters."""
    return REAL[request.param]


@pytest.fixture(scope="session", params=["0.5B", "7B"])
def shrunk_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A small config.json with the head counts and flags of a real checkpoint."""
    return REAL[request.param][0] | SMALLER
