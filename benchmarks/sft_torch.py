"""Run the peer's side of the fine-tuning benchmark as a worker: transformers' Qwen2ForCausalLM under torch.

    python -m benchmarks.sft_torch DIR NUM_BATCHES

It starts with the weights and batches that our side left in DIR. Its masks are made before the clock starts, and its
logits exist only at targets.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import Qwen2ForCausalLM

from benchmarks.worker import serve
from mlagent_jax.platform.cpu import keep_freed_memory

LEARNING_RATE, BETAS, CLIP_NORM = 1e-4, (0.9, 0.95), 1.0
# `mask` and `causal` are SDPA with and without an explicit mask. `causal` is for rows of one sequence, because no
# target sees the padding after it.
ATTENTION = {"mask": "sdpa", "causal": "sdpa", "flex": "flex_attention"}


class Step:
    """One variant of the training step, from new weights.

    Args:
        folder: The folder of the weights.
        dtype: The dtype of products.
        weights: The dtype of weights and moments; if `dtype` is narrower, autocast rounds them.
        attention: A key of `ATTENTION`.
        compiled: Whether torch.compile compiles it.
    """

    def __init__(self, folder: Path, device: str, dtype: str, weights: str, attention: str, compiled: bool) -> None:
        model: Any = Qwen2ForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, weights), attn_implementation=ATTENTION[attention]
        )
        self.model = model.to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True
        )
        self.cast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != weights)
        self.body, self.head = self.model.model, self._head
        if compiled:  # the number of targets differs from batch to batch
            self.body, self.head = torch.compile(self.body, dynamic=False), torch.compile(self.head, dynamic=True)

    def __call__(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the loss and the gradient norm of one step."""
        with self.cast:
            output = self.body(
                input_ids=batch["tokens"],
                position_ids=batch["positions"],
                attention_mask={"full_attention": batch["mask"]},
                use_cache=False,
            )
            loss = self.head(output.last_hidden_state, batch["sources"], batch["targets"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), norm

    def _head(self, hidden: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        chosen = hidden.reshape(-1, hidden.shape[-1])[sources]
        return torch.nn.functional.cross_entropy(self.model.lm_head(chosen).float(), targets)


class Peer:
    """The peer's side on one set of batches; each public method is a request."""

    step: Step | None = None

    def __init__(self, folder: Path, num_batches: int) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.folder, self.num_batches = folder, num_batches

    def start(self, dtype: str, weights: str, attention: str, compiled: bool) -> list[dict[str, float]]:
        """Make the step and return loss and gradient norm of the first pass over the batches."""
        self.step = None  # an earlier variant's memory
        torch.compiler.reset()
        gc.collect()
        self.batches = [self._batch(i, attention) for i in range(self.num_batches)]
        self.step = Step(self.folder / "weights", self.device, dtype, weights, attention, compiled)
        return [{"loss": loss.item(), "gradient_norm": norm.item()} for loss, norm in map(self.step, self.batches)]

    def visit(self) -> float:
        """Return the seconds of one pass over the batches."""
        assert self.step
        began = time.perf_counter()
        losses = [self.step(batch)[0] for batch in self.batches]
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        assert all(loss.isfinite() for loss in losses)
        return seconds

    def peak(self, dtype: str, sizes: list[int]) -> dict[str, Any]:
        """Return the number of threads and the highest FLOP/s of a square matrix product."""
        best = 0.0
        for n in sizes:
            a, b = (torch.randn(n, n, device=self.device, dtype=getattr(torch, dtype)) for _ in range(2))
            for _ in range(6):
                began = time.perf_counter()
                product = a @ b
                product[0, 0].item()
                best = max(best, 2 * n**3 / (time.perf_counter() - began))
        return {"threads": torch.get_num_threads(), "flops": best}

    def _batch(self, number: int, attention: str) -> dict[str, Any]:
        with np.load(self.folder / f"batch{number}.npz") as file:
            batch: dict[str, Any] = {name: torch.from_numpy(file[name]).long().to(self.device) for name in file.files}
        segments = batch.pop("segments")
        b, t = segments.shape
        if attention == "flex":

            def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return (query >= key) & (segments[row, query] == segments[row, key])

            mask = create_block_mask(sees, b, None, t, t, device=self.device)
        elif attention == "mask":
            same = segments[:, None, :, None] == segments[:, None, None, :]
            mask = same & torch.ones(t, t, dtype=torch.bool, device=self.device).tril()
        else:
            if segments.max() > 1:
                raise ValueError("rows hold several sequences; causal attention without a mask would mix them")
            mask = None
        return batch | {"mask": mask}


if __name__ == "__main__":
    keep_freed_memory()
    side = Peer(Path(sys.argv[1]), int(sys.argv[2]))
    serve({"start": side.start, "visit": side.visit, "peak": side.peak})
