"""Measure the grader on as many rows as the largest task has: the 5.8 million pixels of denoising-dirty-documents.

    python -m benchmarks.grading [--rows 6000000]

Prints processor seconds (of one thread) and the peak memory of the process so far after each step: reading the
submission into lists with Python's csv module, in its own process; grading with answers not yet read; grading in the
order of the answers; and grading shuffled rows.
"""

import argparse
import csv
import io
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.grading import score
from tasks.task import Submission

FORM = Submission("id", ("value",))
WIDTH, HEIGHT = 460, 100  # size of an image, for ids like those of the task


def submission(order: np.ndarray) -> bytes:
    """Return a number in [0, 1] for each pixel, with rows in `order`."""
    image, rest = np.divmod(order, WIDTH * HEIGHT)
    row, column = np.divmod(rest, WIDTH)
    value = np.random.default_rng(0).random(len(order))[order]
    ids = zip((image + 1).tolist(), (row + 1).tolist(), (column + 1).tolist(), value.tolist(), strict=True)
    return b"id,value\n" + b"".join(b"%d_%d_%d,%.6f\n" % each for each in ids)


def timed(what: str, work: Callable[[], object]) -> None:
    """Run `work` and print its time and memory."""
    start = time.process_time()
    work()
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{what:40} {seconds:6.2f} s, peak {peak} MiB", flush=True)


def by_csv_module(data: bytes) -> None:
    """Read `data` with Python's csv module."""
    timed("csv module, into lists", lambda: list(csv.reader(io.StringIO(data.decode(), newline=""))))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grading", description=__doc__)
    parser.add_argument("--rows", type=int, default=6_000_000, help="(default: %(default)s)")
    num_rows = parser.parse_args().rows
    straight = submission(np.arange(num_rows))
    reading = multiprocessing.get_context("spawn").Process(target=by_csv_module, args=(straight,))
    reading.start()
    reading.join()
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.csv"
        answers.write_bytes(straight)
        timed("answers and submission", lambda: score(straight, answers, "rmse", FORM))
        timed("submission", lambda: score(straight, answers, "rmse", FORM))
        shuffled = submission(np.random.default_rng(1).permutation(num_rows))
        timed("shuffled submission", lambda: score(shuffled, answers, "rmse", FORM))


if __name__ == "__main__":
    main()
