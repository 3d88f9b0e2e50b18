"""Measure our fine-tuning step on this machine's CPU, compared with transformers'.

    python -m benchmarks.sft_throughput [--shape quickstart|smollm2] [--dtype float32|bfloat16] [--batches 3]
                                        [--rounds 10] [--results benchmarks/results/sft_throughput]

Both sides start with the same weights and packed rows, and must find the same losses and gradient norms, or nothing is
reported. Each side is a separate process with all cores; they alternate and never run together. The peer is the
fastest of its variants. docs/explanation/benchmark-methods.md describes the method. Writes SHAPE-DTYPE.json and .md.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.figures import machine, write_results
from benchmarks.sft_compare import TOLERANCE, Unequal, last_line, run, to_markdown, variants
from benchmarks.sft_shapes import SHAPES
from benchmarks.worker import WorkerFailed
from mlagent_jax.reporting.summary import commit, versions
from tasks.quoting import shell_command, user_path


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="quickstart")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--batches", type=int, default=3, help="batches per pass, one step each")
    parser.add_argument("--rounds", type=int, default=10, help="passes of each side")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/sft_throughput"))
    arguments = parser.parse_args()
    tried = variants(arguments.dtype, peer=True)
    try:
        found = run(arguments.shape, arguments.dtype, arguments.batches, arguments.rounds, tried)
    except (Unequal, WorkerFailed) as error:
        sys.exit(str(error))
    result = {
        "commit": commit(),
        "versions": versions(("jax", "flax", "optax", "torch", "transformers")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.sft_throughput", *sys.argv[1:]),
        **found,
    }
    write_results(arguments.results, f"{arguments.shape}-{arguments.dtype}", result, to_markdown(result))
    print(to_markdown(result))
    print(json.dumps(last_line(result)))


if __name__ == "__main__":
    main()
