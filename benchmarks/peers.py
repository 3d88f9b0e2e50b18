"""Compare `mlagent solve` with AIDE, with the same local model and scripts run, and with FLAML, in the same time.

    python -m tasks prepare --out DATA
    python -m benchmarks.peers DATA MODEL [NAME ...] [--scripts 10] [--work runs/peers]

The peers run in environments of their own, which this makes below `--work`. AIDE asks the same vLLM server for MODEL
that serves our agent and our coder; it has the task's data and its problem text, and writes whole scripts. The score is
that of the delivered submission on the half of the hidden rows that chooses nothing: AIDE's by its own metric, ours by
the other half, FLAML's only one. FLAML gets the seconds that our side took. AIDE begins no script after 20 minutes: a
small model's answers often have no script, and it asks again. A side whose line is in `results/peers/peers.jsonl` does
not run again.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, table
from mlagent_jax.reporting.summary import commit
from mlagent_jax.solving.agents import open_team
from mlagent_jax.solving.finalists import find_finalists
from mlagent_jax.solving.options import SolveLayout, SolveOptions
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.failures import ran_script
from rollout.search.rules import Rule, make_rule
from rollout.search.search import Budget, Search
from rollout.search.tree import Node, SearchTree
from rollout.storage.blob_store import BlobStore
from rollout.storage.journal import Journal
from tasks.grading import InvalidSubmission, grade
from tasks.holdout import divide
from tasks.quoting import user_path
from tasks.registry import load
from tasks.task import Task, draw_instance

RESULTS = Path("benchmarks/results/peers")
TASKS = ("customer_churn", "house_price", "hotel_rate", "credit_status")
AIDE = (
    "aideml==0.2.2",
    *"funcy humanize jsonschema openai anthropic google-genai pandas==2.2.3 numpy==1.26.4 scikit-learn==1.6.1".split(),
    *"rich dataclasses_json omegaconf loguru shutup tqdm coolname python-igraph genson backoff black requests".split(),
    *"lightgbm xgboost statsmodels matplotlib".split(),  # which its prompt names
)
FLAML = ("flaml[automl]==2.3.4", "pandas==2.2.3", "numpy==1.26.4", "scikit-learn==1.6.1")
SECONDS = 60  # of one script
AIDE_SECONDS = 1200  # after which AIDE begins no script
CONTEXT = 8192
# AIDE asks for its reviews as tool calls, and states no limit for an answer, which a small model may never end.
AIDE_FLAGS = (
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--override-generation-config", '{"max_new_tokens": 1024}'),
)
# With this on, vLLM's parser of tool calls writes a grammar that llguidance, the server's, cannot read.
STRICT_TOOL_CALLS = "VLLM_ENFORCE_STRICT_TOOL_CALLING"
HOURS = 3600.0 * 12


@dataclass(frozen=True)
class ScriptLimit:
    """A rule that ends a search after a number of scripts, whatever else the agent does.

    Attributes:
        inner: The rule that chooses.
        num_scripts: The number of scripts.
    """

    inner: Rule
    num_scripts: int

    def choose(self, tree: SearchTree) -> Node | None:
        """Return the inner rule's choice, None once the scripts have run or could run by what is under way."""
        ran = sum(node.step is not None and ran_script(node.step) for node in tree.nodes)
        running = sum(len(node.running) for node in tree.nodes)
        return self.inner.choose(tree) if ran + running < self.num_scripts else None


def environment_of(work: Path, name: str, packages: Sequence[str]) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is missing."""
    folder = work / f"env-{name}"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        alone = [package for package in packages if package.startswith("aideml")]  # it pins torch and fifty others
        if alone:
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *alone], check=True)
        others = [package for package in packages if package not in alone]
        subprocess.run([python, "-m", "pip", "install", "-q", *others], check=True)
        (folder / "complete").touch()
    return python.absolute()


def run_peer(python: Path, side: str, folder: Path, task: dict[str, Any], environment: dict[str, str]) -> float:
    """Run a peer's side in a folder, and return its seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task))
    script = Path(__file__).with_name(f"peers_{side}.py").absolute()
    began = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        subprocess.run(
            [python, script, "task.json"], cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log
        )
    return time.monotonic() - began


def score_of(task: Task, report: Path, file: Path) -> float | None:
    """Return the score of a submission file on the rows to report, None if it is missing or invalid."""
    if not file.exists():
        return None
    try:
        return grade(replace(task, part=report), file.read_bytes())
    except InvalidSubmission:
        return None


def run_aide(task: Task, report: Path, options: argparse.Namespace, server: ServerProcess) -> dict[str, Any]:
    """Return the record of AIDE."""
    folder = (options.work / f"aide-{task.name}").absolute()
    python = environment_of(options.work, "aide", AIDE)
    names = {"{train_file}": "train.csv", "{test_file}": "test.csv", "{script}": "your script"}
    goal = task.problem.strip()
    for old, new in names.items():
        goal = goal.replace(old, new)
    stated = {
        "data": str(task.public.absolute()),
        "goal": goal,
        "metric": f"{task.metric}, to {task.direction}",
        "num_scripts": options.scripts,
        "seconds": SECONDS,
        "max_seconds": AIDE_SECONDS,
        "model": str(server.model),
    }
    endpoint = {"OPENAI_BASE_URL": f"{server.address}/v1", "OPENAI_API_KEY": server.key, "ANTHROPIC_API_KEY": "none"}
    seconds = run_peer(python, "aide", folder, stated, endpoint)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    good = [step for step in steps if step["metric"] is not None and step["has_submission"]]
    sign = task.sign
    best = max(good, key=lambda step: sign * step["metric"], default=None)
    valid = [score_of(task, report, folder / f"submission-{step['step']}.csv") is not None for step in steps]
    return {
        "score": None if best is None else score_of(task, report, folder / f"submission-{best['step']}.csv"),
        "num_scripts": len(steps),
        "valid_share": sum(valid) / max(1, len(steps)),
        "tokens": steps[-1]["input"] + steps[-1]["output"] if steps else 0,
        "seconds": seconds,
    }


def run_ours(task: Task, choose: Path, report: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the record of `mlagent solve`."""
    model = str(options.model)
    stated = SolveOptions(out=folder, task=task.name, agent=model, coder=model, steps=8, trajectories=options.scripts)
    layout = SolveLayout(folder)
    task = replace(task, part=choose)
    store = BlobStore(layout.blobs)
    began = time.monotonic()
    layout.temporary.mkdir(parents=True, exist_ok=True)
    with (
        open_executor(ExecutorOptions(slots=1), store, layout.result_cache) as opened,
        EventLoopThread() as loop,
        open_team(stated, layout, task, loop) as team,
        Journal(layout.search) as journal,
    ):
        settings = team.settings
        environment = Environment(store, opened.executor, team.coder, settings.observation, settings.prompt.show_script)
        instance = draw_instance(task, random.Random("0/names"))
        tree = SearchTree(instance, environment.problem(instance), environment.start(instance))
        rule = ScriptLimit(make_rule("tree", options.scripts, stated.steps), options.scripts)
        search = Search(tree, environment, team.agent, rule, journal)
        loop.run(search.run(Budget(20 * options.scripts, HOURS), 0, 4))
        finalists = loop.run(find_finalists(tree, environment))
        figures = team.figures()
    ran = [node for node in tree.nodes if node.step is not None and ran_script(node.step)]
    endpoint = figures.get("coder", {})
    initial = next(each for each in finalists if each.node is tree.root)
    return {
        "initial": grade(replace(task, part=report), initial.submission),
        "score": grade(replace(task, part=report), finalists[0].submission),
        "num_scripts": len(ran),
        "valid_share": sum(bool(node.script) for node in ran) / max(1, len(ran)),
        "tokens": endpoint.get("input_tokens", 0) + endpoint.get("output_tokens", 0),
        "seconds": time.monotonic() - began,
        "num_actions": tree.num_actions,
    }


def summary(records: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> str:
    """Return the page of all records."""
    rows: list[Sequence[object]] = [("task", "side", "gain", "score", "scripts", "valid", "tokens", "minutes")]
    known = {task.name: task for task in tasks}
    for record in records:
        task, score = known.get(record["task"]), record["score"]
        if task is None:
            continue
        gain = 0.0 if score is None else (score - record["initial"]) / (task.m_best - task.m_init)
        shown = "none" if score is None else f"{score:.4g}"
        valid = "" if record["valid_share"] is None else f"{100 * record['valid_share']:.0f} %"
        rows.append(
            (
                record["task"],
                record["side"],
                f"{gain + 0.0:+.2f}",  # no negative zero
                f"{shown} (initial {record['initial']:.4g})",
                record["num_scripts"],
                valid,
                f"{record['tokens']:,}",
                f"{record['seconds'] / 60:.1f}",
            )
        )
    where = machine()
    return (
        "# mlagent solve beside AIDE and FLAML\n\n"
        f"{where['processor']}, {where['cores']} cores. Gain is (score - initial) / (best known - initial) on hidden "
        "rows that chose nothing; a side without a valid submission counts as 0. Tokens of ours are the coder's alone."
        f"\n\n{table(rows)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sides without a record, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("model", type=user_path, help="Hugging Face directory of the model")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"tasks; default: {', '.join(TASKS)}")
    parser.add_argument("--scripts", type=int, default=10, help="scripts that a side runs")
    parser.add_argument("--work", type=user_path, default=Path("runs/peers"), help="folder of the sides")
    options = parser.parse_args(argv)
    RESULTS.mkdir(parents=True, exist_ok=True)
    tasks = [load(name, options.data) for name in options.names or TASKS]
    with Journal(RESULTS / "peers.jsonl") as journal:
        done = {(record["task"], record["side"]): record for record in journal.records}
        for task in tasks:
            folder = options.work / f"ours-{task.name}"
            choose, report = divide(task, options.work / f"parts-{task.name}", 0)

            def record(side: str, found: dict[str, Any], task: Task = task) -> None:
                line = {"task": task.name, "side": side, "commit": commit(), **found}
                line.setdefault("initial", done.get((task.name, "ours"), line).get("initial"))
                journal.append(line)
                done[task.name, side] = line
                print(json.dumps(line), flush=True)

            if (task.name, "ours") not in done:
                record("ours", run_ours(task, choose, report, options, folder))
            if (task.name, "aide") not in done:
                os.environ[STRICT_TOOL_CALLS] = "0"
                served = ServerOptions(dtype="bfloat16", max_model_len=CONTEXT, kv_cache_mb=1024)
                with ServerProcess(options.model, options.work / "server.log", served, flags=AIDE_FLAGS) as server:
                    record("aide", run_aide(task, report, options, server))
            if (task.name, "flaml") not in done:
                python = environment_of(options.work, "flaml", FLAML)
                stated = {
                    "data": str(task.public.absolute()),
                    "kind": task.kind,
                    "metric": task.metric,
                    "seconds": done[task.name, "ours"]["seconds"],
                }
                side = (options.work / f"flaml-{task.name}").absolute()
                seconds = run_peer(python, "flaml", side, stated, {})
                score = score_of(task, report, side / "submission.csv")
                found = {"score": score, "num_scripts": "", "valid_share": None, "tokens": 0, "seconds": seconds}
                record("flaml", found)
        text = summary(journal.records, tasks)
    (RESULTS / "peers.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
