"""A run whose figures go to a tracking service, without what makes them: the real metrics file and the real followers.

    python tracked_run.py RUN_DIR SERVICE FIRST LAST [kill]

It resumes after update FIRST - 1, logs the updates up to LAST, and then ends, or is killed at once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.follower_process import following
from mlagent_jax.tracking.jsonl import JsonlTracker
from mlagent_jax.tracking.progress import Reporter

if __name__ == "__main__":
    root, service, first, last, *how = sys.argv[1:]
    run_dir = RunDir(Path(root))
    with run_dir.lock(), following(run_dir, [service], Reporter(Console(stderr=True))):
        with JsonlTracker(run_dir.metrics) as tracker:
            tracker.rewind("ppo/update", int(first) - 1)
            for update in range(int(first), int(last) + 1):
                tracker.log({"ppo/update": update, "reward/mean": update / 8, "ppo/loss": -0.5 * update})
                time.sleep(0.3)
        if how == ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
