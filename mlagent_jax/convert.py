"""The command `convert`: make a Hugging Face directory from a GGUF file."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def convert(gguf: Path, out: Path) -> None:
    """Write the network and the tokenizer of a GGUF file as a Hugging Face directory that `model.path` can name.

    Weights are rounded to bfloat16, the type such models are released in; the error is far below that of the
    quantization. The directory is written under a temporary name and renamed when it is complete.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not contain a Llama network that is a special case of Qwen2, with a ChatML tokenizer
            like SmolLM's, or if `out` exists.
    """
    from mlagent_jax.model.hf import save_tensors  # imports JAX, which --help does not need
    from mlagent_jax.model.llama_gguf import LlamaGGUF
    from rollout.tokenizer.gguf_tokenizer import write_gguf_tokenizer

    if out.exists():
        raise ValueError(f"{out} is there already; remove it, or name another folder")
    checkpoint = LlamaGGUF(gguf)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        write_gguf_tokenizer(checkpoint.metadata, temporary, checkpoint.config.max_position_embeddings)
        save_tensors(checkpoint.config, checkpoint.tensors(), temporary, "bfloat16")
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.convert") -> int:
    """Run the command line and return its exit code: 0, or 2 for an invalid input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Make a Hugging Face directory from a GGUF file: Llama networks with ChatML tokenizers.",
    )
    parser.add_argument("gguf", type=Path, metavar="FILE", help="GGUF file, quantized or not")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parsed = parser.parse_args(arguments)
    try:
        convert(parsed.gguf, parsed.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{parsed.out}: made of {parsed.gguf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
