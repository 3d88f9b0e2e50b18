"""The command `convert`: make a Hugging Face directory from a GGUF file."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.error_line import error_line
from tasks.quoting import user_path


def convert(gguf: Path, out: Path, license_file: Path | None = None) -> None:
    """Write the network, the tokenizer and the license of a GGUF file as a Hugging Face directory, for `model.path`.

    Weights are rounded to bfloat16, the type in which such models are released; the error is far below that of their
    quantization. The folder appears under its name only when it is complete.

    Args:
        gguf: The GGUF file.
        out: The directory to write.
        license_file: The license, None for what the GGUF file states about it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no Qwen2 network or a Llama network with a Qwen2 equivalent, or no ChatML tokenizer
            like Qwen2's or SmolLM's, or if `out` exists.
    """
    from mlagent_jax.model.hf import save_tensors  # imports JAX, which --help does not need
    from mlagent_jax.model.sizes import require_rows
    from mlagent_jax.pretrained.gguf_file import GGUFFile
    from mlagent_jax.pretrained.gguf_network import GGUFNetwork
    from rollout.tokenizer.gguf_tokenizer import write_gguf_tokenizer

    if out.exists():
        raise ValueError(f"{out} exists; remove it, or choose another folder")
    file = GGUFFile(gguf)
    network = GGUFNetwork(file)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            tokenizer = write_gguf_tokenizer(file.metadata, temporary, network.config.max_position_embeddings)
        except ValueError as error:
            raise ValueError(f"{gguf}: {error}") from None
        require_rows(gguf, network.config.vocab_size, tokenizer.vocab_size)
        if license_file is not None:
            shutil.copyfile(license_file, temporary / "LICENSE")
        elif stated := file.license():
            (temporary / "LICENSE").write_text(stated, encoding="utf-8")
        save_tensors(network.config, network.tensors(), temporary, "bfloat16")
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.convert") -> int:
    """Run the command line and return its exit code: 0, or 2 for an invalid input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Make a Hugging Face directory from a GGUF file: Qwen2 and Llama networks with ChatML tokenizers.",
    )
    parser.add_argument("gguf", type=user_path, metavar="FILE", help="GGUF file, quantized or not")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--license", type=user_path, metavar="FILE", help="license of the model (default: what the GGUF file states)"
    )
    parsed = parser.parse_args(arguments)
    try:
        convert(parsed.gguf, parsed.out, parsed.license)
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return 2
    print(f"{parsed.out}: converted from {parsed.gguf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
