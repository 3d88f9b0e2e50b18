"""Determine the sizes of the policy network from its checkpoint, and check the configuration against them."""

from dataclasses import replace
from pathlib import Path

from mlagent_jax.configuration.checks import HEAD_SIZES, SIZES, check_sizes, missing_sizes
from mlagent_jax.configuration.schema import ConfigError, Mesh, Model
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.families import read_config
from mlagent_jax.model.families.qwen2 import Qwen2Config


def checkpoint_config(model: Model, vocab_size: int | None, mesh: Mesh) -> TransformerConfig:
    """Return the sizes of the checkpoint at `model.path`, read from its `config.json` alone.

    Args:
        model: The section `model`; its path is set.
        vocab_size: The key `tokenizer.vocab_size`.
        mesh: The layout of the devices.

    Raises:
        ConfigError: If the checkpoint is not supported, a stated size differs from the checkpoint's, or its sizes are
            not divisible as the mesh requires.
        FileNotFoundError: If there is no `config.json`.
    """
    assert model.path is not None
    try:
        checkpoint = read_config(Path(model.path))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    stated = {f"model.{key}": (getattr(model, key), getattr(checkpoint, key)) for key in SIZES}
    stated["tokenizer.vocab_size"] = vocab_size, checkpoint.vocab_size
    wrong = {key: (got, size) for key, (got, size) in stated.items() if got not in (None, size)}
    if wrong:
        got = ", ".join(f"{key}={value}" for key, (value, _) in wrong.items())
        expected = ", ".join(str(size) for _, size in wrong.values())
        verb, pronoun = ("does", "it") if len(wrong) == 1 else ("do", "them")
        raise ConfigError(
            f"{got} {verb} not fit the checkpoint at model.path={model.path}, which has {expected}; leave {pronoun} "
            f"out, or set {pronoun} to null"
        )
    if checkpoint.head_dim not in HEAD_SIZES:
        raise ConfigError(
            f"model.path={model.path} has heads of size {checkpoint.head_dim}, which vLLM does not serve everywhere, "
            f"expected one of {', '.join(map(str, HEAD_SIZES))}; use another checkpoint"
        )
    check_sizes(replace(model, **{key: getattr(checkpoint, key) for key in SIZES}), mesh)
    return checkpoint


def require_rows(path: Path, num_rows: int, num_tokens: int) -> None:
    """Raise ValueError if the embedding of the checkpoint at `path` has fewer rows than its tokenizer has tokens."""
    if num_rows < num_tokens:
        raise ValueError(
            f"{path}: {num_rows} embedding rows for a tokenizer of {num_tokens} tokens; use the tokenizer that the "
            "model was trained with"
        )


def require_sizes(model: Model, vocab_size: int | None) -> None:
    """Raise ConfigError if a size is null, for uses of the section `model` without a checkpoint."""
    missing = missing_sizes(model, vocab_size)
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: null, and there is no {model.path}/config.json to read a value from; put the "
            "checkpoint or its config.json there, or state the sizes"
        )


def model_config(
    model: Model, vocab_size: int | None, eos_token_id: int, max_length: int, bos_token_id: int = 0
) -> Qwen2Config:
    """Return the configuration of a network of the sizes in `model`; a policy from scratch is a Qwen2 network.

    Raises:
        ConfigError: If one of the sizes is null.
    """
    require_sizes(model, vocab_size)
    assert vocab_size and model.num_layers and model.hidden_size and model.num_heads and model.num_kv_heads
    assert model.intermediate_size and model.rope_theta and model.tie_word_embeddings is not None
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.hidden_size // model.num_heads,
        rope_theta=model.rope_theta,
        tie_word_embeddings=model.tie_word_embeddings,
        max_position_embeddings=max_length,
        eos_token_id=eos_token_id,
        bos_token_id=bos_token_id,
    )


def planned_config(model: Model, vocab_size: int | None, mesh: Mesh, max_length: int) -> TransformerConfig:
    """Return the sizes of the policy: the checkpoint's if there is a `config.json`, else those that are stated.

    Args:
        model: The section `model`.
        vocab_size: The key `tokenizer.vocab_size`.
        mesh: The section `mesh`.
        max_length: The longest context of a policy from scratch, in tokens.

    Raises:
        ConfigError: If neither states all sizes, or the two differ.
    """
    if model.path is not None and (Path(model.path) / "config.json").is_file():
        return checkpoint_config(model, vocab_size, mesh)
    return model_config(model, vocab_size, eos_token_id=0, max_length=max_length)
