"""Measure how often the interval that `mlagent solve` reports covers the score on fresh rows.

    python -m benchmarks.solve_coverage [--seeds 12] [--work runs/solve_coverage]

The made tables of `benchmarks.solve_tables` are drawn with many seeds. Each is solved by a few actions of the scripted
agent, and the script, fitted on the rows that the agent had, predicts fresh rows. A line of
`results/solve_coverage/searches.jsonl` is not computed again. Writes `coverage.md`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import machine, table
from benchmarks.solve_tables import EXAMPLES, NUM_ROWS, fresh_scores, solve_rows
from mlagent_jax.reporting.summary import commit
from rollout.storage.journal import Journal
from tasks.quoting import user_path

RESULTS = Path("benchmarks/results/solve_coverage")
STEPS, TRAJECTORIES, MINUTES = 3, 4, 5.0
MADE = [name for name, example in EXAMPLES.items() if example.is_made]


def solve_seed(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Return the record of one drawn table."""
    example, folder = EXAMPLES[name], work / f"{name}-{seed}"
    budget = {"steps": STEPS, "trajectories": TRAJECTORIES, "minutes": MINUTES}
    result = solve_rows(name, example.make(NUM_ROWS, 100 + seed), folder, **budget, seed=seed)
    assert result.report is not None, "the table has enough rows"
    score = result.report.score
    fresh = fresh_scores(example, folder, result)
    return {
        "table": name,
        "seed": seed,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "fresh": fresh["reported"],
        "fresh_delivered": fresh["delivered"],
        "validation": result.validation,
        "choice": result.choice,
        "commit": commit(),
    }


def is_covered(record: dict[str, Any]) -> bool:
    """Return whether the reported interval covers the score on fresh rows."""
    return record["low"] <= record["fresh"] <= record["high"]


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Return the page of all records."""
    rows: list[Sequence[object]] = [
        (
            "table",
            "seeds",
            "covered",
            "reported / fresh",
            "chosen by / fresh",
            "agent's own / fresh",
            "fitted on all / fresh",
        )
    ]
    covered = sum(map(is_covered, records))
    for name in MADE:
        ours = [each for each in records if each["table"] == name]
        if not ours:
            continue
        inside = sum(map(is_covered, ours))
        ratios = (
            np.mean([each[key] / each["fresh"] for each in ours])
            for key in ("value", "choice", "validation", "fresh_delivered")
        )
        rows.append((f"{name} ({EXAMPLES[name].metric})", len(ours), inside, *(f"{ratio:.3f}" for ratio in ratios)))
    where = machine()
    return (
        "# Coverage of the reported interval on fresh rows\n\n"
        f"{covered} of {len(records)} intervals of 95 % cover it. Each row is about the made tables of one kind, "
        f"{NUM_ROWS:,} rows each, {STEPS * TRAJECTORIES} actions of the scripted agent; {where['processor']}, "
        f"{where['cores']} cores. The ratios are means over seeds.\n\n{table(rows)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Solve the drawn tables without a record, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="draws of each table")
    parser.add_argument("--work", type=user_path, default=Path("runs/solve_coverage"), help="folder of the searches")
    options = parser.parse_args(argv)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with Journal(RESULTS / "searches.jsonl") as journal:
        done = {(each["table"], each["seed"]) for each in journal.records}
        for seed in range(options.seeds):
            for name in MADE:
                if (name, seed) not in done:
                    journal.append(solve_seed(name, seed, options.work))
                    print(json.dumps(journal.records[-1]), flush=True)
        text = summary(journal.records)
    (RESULTS / "coverage.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
