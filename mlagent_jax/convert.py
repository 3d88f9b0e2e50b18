"""The command line that makes a checkpoint of a GGUF file: `python -m mlagent_jax.convert FILE --out DIR`."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.model.hf import save_tensors
from mlagent_jax.model.llama_gguf import LlamaGGUF
from rollout.tokenizer.gguf_tokenizer import write_gguf_tokenizer


def convert(gguf: Path, out: Path) -> None:
    """Write the network and the tokenizer of a GGUF file as a Hugging Face directory that `model.path` can name.

    Weights are rounded to bfloat16, the type such models are released in: an error far below that of the quantisation
    they have been through. The folder is written aside and takes its name when it is whole.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold a Llama network that Qwen2's is the same as, with a ChatML tokenizer like
            SmolLM's; or if `out` is there already.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; remove it, or name another folder")
    checkpoint = LlamaGGUF(gguf)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        write_gguf_tokenizer(checkpoint.metadata, aside, checkpoint.config.max_position_embeddings)
        save_tensors(checkpoint.config, checkpoint.tensors(), aside, "bfloat16")
        os.rename(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mlagent_jax.convert",
        description="Make a Hugging Face directory of a GGUF file, for model.path: Llama networks, ChatML tokenizers.",
    )
    parser.add_argument("gguf", type=Path, metavar="FILE", help="GGUF file, quantised or not")
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
