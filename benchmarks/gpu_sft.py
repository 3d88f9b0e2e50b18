"""Measure our fine-tuning step on a GPU, and transformers' for comparison if torch and transformers are installed.

    python -m benchmarks.gpu_sft [--shapes qwen2.5-0.5b qwen2.5-1.5b] [--batches 2] [--rounds 5] [--out FILE]
    python -m benchmarks.gpu_sft --tiny       a rehearsal on any machine

Steps in bf16 with fp32 weights on packed rows of 8192 tokens, all predicted, from random weights. Needs JAX, Flax,
optax, jaxtyping and this repository. docs/explanation/benchmark-methods.md describes the method. Prints one line of
JSON for each shape, and one with all of them at the end. The exit status is 1 if a shape failed.
"""

import argparse
import importlib.util
import json
import sys

from benchmarks.sft_compare import Unequal, last_line, run, to_markdown, variants
from benchmarks.sft_shapes import SHAPES
from benchmarks.worker import WorkerFailed
from mlagent_jax.reporting.summary import versions
from tasks.quoting import user_path


def main() -> None:
    """Run the benchmark from the command line; a shape that fails is reported and the others still run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["qwen2.5-0.5b", "qwen2.5-1.5b"])
    parser.add_argument("--batches", type=int, default=2, help="batches per pass, one step each")
    parser.add_argument("--rounds", type=int, default=5, help="passes of each side")
    parser.add_argument("--out", type=user_path, default=None, help="file for all figures, as JSON")
    parser.add_argument("--tiny", action="store_true", help="one tiny network, two rounds")
    arguments = parser.parse_args()
    peer = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    shapes, num_rounds = (["tiny"], 2) if arguments.tiny else (arguments.shapes, arguments.rounds)
    results, lines = {}, {}
    for shape in shapes:
        tried = variants("bfloat16", peer)
        try:
            results[shape] = run(shape, "bfloat16", arguments.batches, num_rounds, tried)
            lines[shape] = last_line(results[shape])
            print(to_markdown(results[shape]))
        except (Unequal, WorkerFailed) as error:
            lines[shape] = {"error": str(error)}
        print(json.dumps({shape: lines[shape]}), flush=True)
    ratios = [line["ratio"] for line in lines.values() if line.get("ratio") is not None]
    found = {"ratio": min(ratios, default=None), "peer": peer, "shapes": lines}
    if arguments.out is not None:
        details = {"versions": versions(("jax", "flax", "optax", "torch", "transformers")), "results": results}
        arguments.out.write_text(json.dumps(found | details, indent=1) + "\n")
    print(json.dumps(found))
    sys.exit(int(len(results) < len(shapes)))


if __name__ == "__main__":
    main()
