"""Log-probabilities of chosen tokens, without ever holding the logits of a whole batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.rows import Rows

CHUNK = 1024  # predictions whose logits exist at one time


def gather_sources(hidden: Float[Array, "B T D"], sources: Int[Array, "B M"]) -> Float[Array, "B M D"]:
    """Returns the hidden states that predict."""
    return jnp.take_along_axis(hidden, sources[..., None], axis=1)


def token_logprobs(
    model: Qwen2, rows: Rows, temperature: float = 1.0
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """Returns log-probability of each target and entropy of each prediction, in nats, softmax in fp32.

    The logits are divided by `temperature`, as the sampler does. They are made in chunks and made again in the backward
    pass, so memory is that of one chunk.
    """
    hidden = gather_sources(model.hidden(rows.tokens, rows.positions, rows.layout), rows.sources)
    b, m, d = hidden.shape
    chunk = min(CHUNK, b * m)
    padding = -(b * m) % chunk
    flat = jnp.pad(hidden.reshape(b * m, d), ((0, padding), (0, 0))).reshape(-1, chunk, d)
    targets = jnp.pad(rows.targets.reshape(b * m), (0, padding)).reshape(-1, chunk)
    logprob, entropy = jax.lax.map(lambda pair: _chunk(model, temperature, *pair), (flat, targets))
    return logprob.reshape(-1)[: b * m].reshape(b, m), entropy.reshape(-1)[: b * m].reshape(b, m)


def _chunk(
    model: Qwen2, temperature: float, hidden: Float[Array, "C D"], targets: Int[Array, " C"]
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    head = model.head()

    @jax.checkpoint
    def score(hidden: Float[Array, "C D"], head: Float[Array, "V D"]) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
        logits = jnp.einsum("cd,vd->cv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
        logits = logits / temperature
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        logprob = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - normalizer
        entropy = normalizer - jnp.sum(jnp.exp(logits - normalizer[:, None]) * logits, axis=-1)
        return logprob, entropy

    return score(hidden, head)
