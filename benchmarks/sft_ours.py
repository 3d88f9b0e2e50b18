"""Run our side of the fine-tuning benchmark as a worker: the trainer's real step with only JAX, Flax and optax.

    python -m benchmarks.sft_ours SHAPE DIR NUM_BATCHES

Draws weights from a fixed seed and leaves them, and the batches, in DIR for the other side.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.sft_rows import load_of, make_batches, segments_of
from benchmarks.sft_shapes import SHAPES
from benchmarks.worker import serve
from mlagent_jax.model.placement import place_batch
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Remat, Transformer
from mlagent_jax.platform import cpu
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import make_state

LEARNING_RATE, ADAM_B2 = 1e-4, 0.95
CLIP_NORM = 1.0


class Ours:
    """The trainer's step on one shape; each public method is a request."""

    def __init__(self, shape: str, folder: Path, num_batches: int) -> None:
        self.shape, self.folder = SHAPES[shape], folder
        self.batches = make_batches(self.shape, num_batches)
        self.mesh = make_mesh(1, 1, 1, 1)

    def model(self, dtype: str = "float32", remat: Remat = "none") -> Transformer:
        """Return the network with the weights that both sides start with."""
        return Transformer(self.shape.network, nnx.Rngs(0), jnp.dtype(dtype), remat, self.mesh)

    def make(self, peer: bool) -> dict[str, Any]:
        """Write the batches and, if there is a `peer`, the weights; return the load of the batches."""
        load = load_of(self.batches)
        if peer:
            from mlagent_jax.model.hf import save_hf  # imports safetensors, which transformers needs too

            save_hf(self.model(), self.folder / "weights")
        for i, rows in enumerate(self.batches):
            index = np.flatnonzero(rows.weights)
            flat = (np.arange(len(rows.tokens))[:, None] * self.shape.length + rows.sources).reshape(-1)
            np.savez(
                self.folder / f"batch{i}.npz",
                tokens=rows.tokens,
                positions=rows.positions,
                segments=segments_of(rows),
                sources=flat[index],
                targets=rows.targets.reshape(-1)[index],
            )
        return {"tokens": load.tokens, "targets": load.targets, "pairs": load.pairs}

    def start(self, dtype: str, remat: Remat) -> list[dict[str, float]]:
        """Compile the step and return loss and gradient norm of the first pass over the batches."""
        # otherwise a GPU rounds the factors of fp32 products to 10 bits
        jax.config.update("jax_default_matmul_precision", "highest" if dtype == "float32" else None)
        optimizer = make_optimizer("adamw", LEARNING_RATE, CLIP_NORM, adam_b2=ADAM_B2)
        model = self.model(dtype, remat)
        self.state = make_state(model, optimizer, self.mesh)
        self.step = make_sft_step(nnx.split(model)[0], optimizer, self.state)
        self.placed = [place_batch(rows, self.mesh) for rows in self.batches]
        return [{name: float(value) for name, value in self._step(rows).items()} for rows in self.placed]

    def visit(self) -> float:
        """Return the seconds of one pass over the batches."""
        began = time.perf_counter()
        losses = [self._step(rows)["loss"] for rows in self.placed]
        jax.block_until_ready((self.state, losses))
        seconds = time.perf_counter() - began
        assert all(jnp.isfinite(loss) for loss in losses)
        return seconds

    def peak(self, dtype: str, sizes: list[int]) -> dict[str, Any]:
        """Return the device and the highest FLOP/s of a square matrix product."""
        best = 0.0
        product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.dtype(dtype)))
        for n in sizes:
            a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.dtype(dtype)) for i in range(2))
            for _ in range(6):
                began = time.perf_counter()
                product(a, b).block_until_ready()
                best = max(best, 2 * n**3 / (time.perf_counter() - began))
        return {"device": jax.devices()[0].device_kind, "flops": best}

    def _step(self, rows: Any) -> dict[str, jax.Array]:
        self.state, metrics = self.step(self.state, rows)
        return metrics


if __name__ == "__main__":
    cpu.prepare()
    side = Ours(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    serve({"make": side.make, "start": side.start, "visit": side.visit, "peak": side.peak})
