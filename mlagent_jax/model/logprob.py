"""Log-probabilities of chosen tokens, computed without the logits of a whole batch in memory."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mlagent_jax.model.matmul import product
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import constrain
from mlagent_jax.model.transformer import Transformer

CHUNK = 1024 * 152_064  # logits that a device holds at a time: those of 1024 predictions of the largest Qwen2.5

# While a chunk is scored, the vocabulary is sharded over both axes that hold parts of the head, and the rows of the
# chunk over data alone. A device then has whole columns of logits, and devices exchange only the hidden states of one
# chunk, and sums.
VOCABULARY = P(("tensor", "fsdp"))
CHUNK_ROWS = P("data", "context")  # [B, C]
CHUNKS = P(None, ("data", "fsdp"), "context")  # [chunks, B, C], before and after scoring


def gather_sources(hidden: Float[Array, "B T D"], sources: Int[Array, "B M"]) -> Float[Array, "B M D"]:
    """Return the hidden states from which tokens are predicted."""
    return jnp.take_along_axis(hidden, sources[..., None], axis=1)


def token_logprobs(
    model: Transformer, batch: PackedBatch, temperature: float = 1.0
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """Return the log-probability of each target and the entropy of each prediction, in nats.

    The softmax is in fp32. The logits are divided by `temperature`, as in the sampler. They are computed for one chunk
    of predictions at a time, and recomputed in the backward pass if there are several chunks, so memory holds the
    logits of one chunk.
    """
    hidden = gather_sources(model.hidden(batch.tokens, batch.positions, batch.layout), batch.sources)
    return target_logprobs(model, hidden, jnp.asarray(batch.targets), temperature)


def target_logprobs(
    model: Transformer, hidden: Float[Array, "B M D"], targets: Int[Array, "B M"], temperature: float = 1.0
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """Return the same as `token_logprobs`, given the hidden states from which the targets are predicted."""
    b, m, d = hidden.shape
    head = constrain(model.head().astype(hidden.dtype), model.mesh, VOCABULARY)
    size = chunk_size(b, m, head.shape, model.mesh)
    padding = -m % size

    def chunks(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        x = jnp.moveaxis(x.reshape(b, -1, size, *x.shape[2:]), 1, 0)
        return constrain(x, model.mesh, CHUNKS)

    scores = score_chunks(chunks(hidden), head, chunks(targets), temperature, model.mesh)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, -1)[:, :m], scores)


def chunk_size(num_rows: int, num_predictions: int, head: tuple[int, int], mesh: Mesh | None) -> int:
    """Return the number of predictions of every row in a chunk, such that a device holds CHUNK logits.

    Every device has the hidden states of a whole chunk. If its part of the vocabulary is narrower than a hidden state,
    the chunk is limited by the hidden states instead.
    """
    devices, parts = (1, 1) if mesh is None else (mesh.size, mesh.shape["context"])
    at_a_time = max(1, CHUNK // head[0]) * min(devices, max(1, head[0] // head[1]))
    num_chunks = -(-num_rows * num_predictions // at_a_time)
    return -(-num_predictions // (num_chunks * parts)) * parts


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def score_chunks(
    hidden: Float[Array, "J B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "J B C"],
    temperature: float,
    mesh: Mesh | None,
) -> tuple[Float[Array, "J B C"], Float[Array, "J B C"]]:
    """Return log-probability and entropy of J chunks of C predictions in B rows, one chunk at a time.

    With l the logits over the temperature and Z = log sum exp l: log p = l_target - Z, H = Z - sum softmax(l) l.
    """
    return _forward(hidden, head, targets, temperature, mesh)[0]


def _forward(
    hidden: Float[Array, "J B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "J B C"],
    temperature: float,
    mesh: Mesh | None,
) -> tuple[tuple[Float[Array, "J B C"], Float[Array, "J B C"]], tuple]:
    single = hidden.shape[0] == 1

    def score(chunk: tuple[Float[Array, "B C D"], Int[Array, "B C"]]) -> tuple[Array | None, ...]:
        logits = _logits(constrain(chunk[0], mesh, CHUNK_ROWS), head, temperature, mesh)
        largest = jnp.max(logits, axis=-1, keepdims=True)
        weights = jnp.exp(logits - largest)
        total = jnp.sum(weights, axis=-1)
        mean = jnp.sum(weights * logits, axis=-1) / total
        normalizer = largest[..., 0] + jnp.log(total)
        chosen = jnp.sum(jnp.where(_chosen(chunk[1], head), logits, 0.0), axis=-1)
        return chosen, normalizer, mean, logits if single else None

    chosen, normalizer, mean, logits = jax.lax.map(score, (hidden, targets))
    return (chosen - normalizer, normalizer - mean), (hidden, head, targets, normalizer, mean, logits)


def _backward(
    temperature: float, mesh: Mesh | None, saved: tuple, gradients: tuple[Float[Array, "J B C"], Float[Array, "J B C"]]
) -> tuple[Float[Array, "J B C D"], Float[Array, "V D"], None]:
    """Return the gradients: d log p / dl_j = [j is the target] - p_j, dH / dl_j = -p_j (l_j - sum p l)."""
    hidden, head, targets, normalizer, mean, logits = saved

    def step(head_gradient: Float[Array, "D V"], chunk: tuple) -> tuple[Float[Array, "D V"], Float[Array, "B C D"]]:
        *arrays, logits = chunk
        hidden, targets, normalizer, mean, logprob, entropy = (constrain(x, mesh, CHUNK_ROWS) for x in arrays)
        if logits is None:
            logits = _logits(hidden, head, temperature, mesh)
        p = jnp.exp(logits - normalizer[..., None])
        by_logit = -p * (logprob[..., None] + entropy[..., None] * (logits - mean[..., None]))
        by_logit += jnp.where(_chosen(targets, head), logprob[..., None], 0.0)
        by_logit = (by_logit / temperature).astype(hidden.dtype)
        by_head = product("bcd,bcv->dv", hidden, by_logit, jnp.float32)
        by_hidden = product("bcv,vd->bcd", by_logit, head)
        return constrain(head_gradient + by_head, mesh, columns), constrain(by_hidden, mesh, P(*CHUNKS[1:]))

    # Summed as [D, V], so that the narrower of the two factors is the transposed one (see `matmul`).
    columns = P(None, *VOCABULARY)
    start = constrain(jnp.zeros(head.shape[::-1], jnp.float32), mesh, columns)
    by_head, by_hidden = jax.lax.scan(step, start, (hidden, targets, normalizer, mean, *gradients, logits))
    return by_hidden, by_head.T.astype(head.dtype), None


score_chunks.defvjp(_forward, _backward)


def _logits(
    hidden: Float[Array, "B C D"], head: Float[Array, "V D"], temperature: float, mesh: Mesh | None
) -> Float[Array, "B C V"]:
    logits = product("bcd,vd->bcv", hidden, head, jnp.float32)
    return constrain(logits / temperature, mesh, P(*CHUNK_ROWS, *VOCABULARY))


def _chosen(targets: Int[Array, "B C"], head: Float[Array, "V D"]) -> Array:
    return targets[..., None] == jnp.arange(head.shape[0])
