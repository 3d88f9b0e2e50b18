"""The side of AIDE in `benchmarks.peers`: runs in an environment of its own, which has aideml and not this project.

    python peers_aide.py TASK.json

TASK.json has the folder of the data, the goal, the metric, the number of scripts, the time limit of one, that after
which none begins, and the model.
After each script, one line of `steps.jsonl` in the working directory says how it went, and its submission is kept.
"""

# pyright: reportMissingImports=false

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import aide
from aide.backend import backend_openai

USAGE = {"input": 0, "output": 0}


def count_tokens() -> None:
    """Count the tokens of all requests, which AIDE reads from the answers and drops."""
    ask = backend_openai.query

    def counted(*arguments: Any, **settings: Any) -> tuple:
        answer = ask(*arguments, **settings)
        USAGE["input"] += answer[2]
        USAGE["output"] += answer[3]
        return answer

    from aide import backend

    backend.provider_to_query_func["openai"] = counted


def main() -> None:
    """Run AIDE for the number of scripts that the task states."""
    task = json.loads(Path(sys.argv[1]).read_text())
    count_tokens()
    experiment = aide.Experiment(data_dir=task["data"], goal=task["goal"], eval=task["metric"])
    config = experiment.agent.acfg
    config.code.model = config.feedback.model = task["model"]
    config.k_fold_validation = 1  # as the first scripts of this project validate
    experiment.interpreter.timeout = task["seconds"]
    experiment.cfg.exec.timeout = task["seconds"]
    working = Path(experiment.cfg.workspace_dir) / "working"
    began = time.monotonic()
    with open("steps.jsonl", "a") as out:
        for step in range(task["num_scripts"]):
            if time.monotonic() - began > task["max_seconds"]:
                break
            (working / "submission.csv").unlink(missing_ok=True)
            error = ""
            try:
                experiment.agent.step(exec_callback=experiment.interpreter.run)
            except Exception as problem:  # a small model's review is often no JSON, which ends AIDE's own loop
                error = f"{type(problem).__name__}: {problem}"[:300]
            submission = working / "submission.csv"
            if submission.exists():
                shutil.copy(submission, f"submission-{step}.csv")
            node = experiment.journal.nodes[-1] if experiment.journal.nodes and not error else None
            record = {
                "step": step,
                "is_buggy": node.is_buggy if node else True,
                "metric": node.metric.value if node and not node.is_buggy else None,
                "maximize": node.metric.maximize if node and not node.is_buggy else None,
                "has_submission": submission.exists(),
                "seconds": time.monotonic() - began,
                "error": error,
                **USAGE,
            }
            out.write(json.dumps(record) + "\n")
            out.flush()
    experiment.interpreter.cleanup_session()


if __name__ == "__main__":
    main()
