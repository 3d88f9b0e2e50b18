"""Compare the formats in which a coder model can answer: the whole edited script, or search/replace blocks.

    python -m tasks prepare --out DATA
    python -m benchmarks.coder DATA MODEL [--pairs 80] [--minutes M] [--dtype bfloat16]
                               [--results benchmarks/results/coder] [--work runs/coder]

DATA is a folder of prepared tasks, MODEL a checkpoint. Starts the project's server on it, asks for every edit of
`benchmarks.coder_edits.draw_pairs` in both formats, at temperature 0 and 8 requests at a time, and then runs the edited
scripts in the sandbox. Scripts run after the server has stopped, so that they do not slow each other down.

Every edit is recorded in a folder of the model in WORK when it is made, so the same command continues an interrupted
one; --minutes ends it after that time, to be continued. Remove the folder after a change of the coder. Writes
coder.json and coder.md when all edits are there; the figures of other models stay in these files.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.coder_edits import Pair, draw_pairs
from benchmarks.coder_figures import FORMATS, NUM_CONCURRENT, judge, markdown, summarize
from benchmarks.model_results import read_models, write_models
from rollout.endpoint import Answer, ChatEndpoint, Exchanges
from rollout.endpoint.coder import EndpointCoder
from rollout.environment.environment import Environment
from rollout.errors import CoderError, InfrastructureError
from rollout.executor import open_executor
from rollout.inference.access import KEY_VARIABLE
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.options import EditFormat, ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread, gather
from rollout.scripted.coder import ScriptedCoder
from rollout.storage.blob_store import BlobStore
from tasks.action import EXECUTE, Action
from tasks.feedback import Outcome
from tasks.prompt import Message
from tasks.quoting import user_path
from tasks.registry import load
from tasks.response import FIELDS, format_response

TASKS = (
    *("customer_churn", "diamond_price", "digit_images", "house_price", "movie_sentiment"),
    *("hotel_rate", "leaf_species", "tweet_device"),
)
MAX_RESPONSE_TOKENS = 1024  # twice the longest script of the benchmark
MAX_MODEL_LEN = 8192
KV_CACHE_MB = 1500
REQUEST_SECONDS = 600.0  # eight long answers at a time on a CPU


@dataclass
class Recorder:
    """An endpoint that keeps the answers to one edit."""

    endpoint: ChatEndpoint
    answers: list[Answer]

    async def ask(self, messages: Sequence[Message], *, seed: int, temperature: float = 1.0) -> Answer:
        """Return the endpoint's answer, and keep it."""
        answer = await self.endpoint.ask(messages, seed=seed, temperature=temperature)
        self.answers.append(answer)
        return answer


async def make_edits(
    endpoint: ChatEndpoint, edit_format: EditFormat, pairs: Sequence[Pair], journal: Path, deadline: float
) -> None:
    """Ask for the edits of `pairs`, several at a time, and append each to the journal; start none after `deadline`."""
    upcoming = iter(pairs)

    async def work() -> None:
        for pair in upcoming:
            if time.monotonic() > deadline:
                return
            recorder = Recorder(endpoint, [])
            coder = EndpointCoder(recorder, edit_format)  # type: ignore[arg-type]
            began = time.monotonic()
            try:
                reply = await coder.edit(pair.source, pair.instruction)
                source, reason = reply.source, reply.reason
            except CoderError as error:
                source, reason = None, str(error)
            record = {
                "pair": pair.name,
                "source": source,
                "reason": reason,
                "seconds": round(time.monotonic() - began, 3),
                "answers": [asdict(answer) for answer in recorder.answers],
            }
            with journal.open("a") as file:
                file.write(json.dumps(record) + "\n")

    await gather(work() for _ in range(NUM_CONCURRENT))


def read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    """Return the recorded edits by the name of their pair."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {record["pair"]: record for record in map(json.loads, lines)}


async def run_edited(environment: Environment, pair: Pair, source: str) -> bool:
    """Return whether a script runs and leaves a valid submission."""
    instance = pair.instance
    start = environment.start(instance)
    files = {**start.files, instance.names.script: environment.store.put(source.encode())}
    run = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(EXECUTE, {"script_name": instance.names.script}))
    result = await environment.step(instance, replace(start, files=files), run)
    return result.feedback.outcome is Outcome.NON_EDIT and result.feedback.metric is not None


def ask_model(options: argparse.Namespace, pairs: Sequence[Pair], work: Path) -> None:
    """Serve the model and make the edits that are missing in the work folder, in the time given."""
    deadline = time.monotonic() + 60 * options.minutes
    missing: dict[EditFormat, list[Pair]] = {}
    for name in FORMATS:
        made = read_journal(work / f"{name}.jsonl")
        missing[name] = [pair for pair in pairs if pair.name not in made]
    if not any(missing.values()):
        return
    server = ServerOptions(dtype=options.dtype, max_model_len=MAX_MODEL_LEN, kv_cache_mb=KV_CACHE_MB)
    with ServerProcess(options.model, work / "server.log", server) as process:
        os.environ[KEY_VARIABLE] = process.key
        for name, left in missing.items():
            asyncio.run(_ask_in_format(name, left, f"{process.address}/v1", process.model, work, deadline))


async def _ask_in_format(
    name: EditFormat, pairs: Sequence[Pair], address: str, model: Path, work: Path, deadline: float
) -> None:
    async with _endpoint(name, address, model, work, KEY_VARIABLE) as endpoint:
        await make_edits(endpoint, name, pairs, work / f"{name}.jsonl", deadline)


def _endpoint(name: str, address: str, model: Path, work: Path, key_variable: str = "") -> ChatEndpoint:
    return ChatEndpoint(
        address,
        str(model),
        CoderError,
        key_variable,
        name="coder",
        timeout_seconds=REQUEST_SECONDS,
        max_concurrent=NUM_CONCURRENT,
        max_response_tokens=MAX_RESPONSE_TOKENS,
        max_empty_share=1.0,
        exchanges=Exchanges(work / "exchanges" / name),
    )


async def _tokens(name: str, model: Path, work: Path) -> dict[str, int]:
    """Return the figures of all requests that were made in a format."""
    async with _endpoint(name, "http://127.0.0.1/v1", model, work) as endpoint:
        return endpoint.figures()


def judge_edits(pairs: Sequence[Pair], work: Path, slots: int) -> dict[str, dict[str, dict[str, Any]]] | None:
    """Return what was recorded of each edit and what is true of it, by format and pair; None if an edit is missing."""
    edits: dict[str, dict[str, dict[str, Any]]] = {name: read_journal(work / f"{name}.jsonl") for name in FORMATS}
    if any(pair.name not in by_pair for by_pair in edits.values() for pair in pairs):
        return None
    store = BlobStore(work / "blobs")
    opening = open_executor(ExecutorOptions(slots=slots), store, work / "records")
    with opening as opened, EventLoopThread() as background:
        environment = Environment(store, opened.executor, ScriptedCoder(), Observation(), show_script=False)
        for name in FORMATS:
            cases = [(pair, edits[name][pair.name]["source"]) for pair in pairs]
            made = [(pair, source) for pair, source in cases if source is not None]
            ran = background.run(gather(run_edited(environment, pair, source) for pair, source in made))
            runs = {pair.name: each for (pair, _), each in zip(made, ran, strict=True)}
            for pair in pairs:
                record = edits[name][pair.name]
                record["is"] = judge(pair, name, record, runs.get(pair.name, False))
    return edits


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0; 1 if the time ended first; 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("model", type=user_path, help="folder of the checkpoint")
    parser.add_argument("--pairs", type=int, default=80, help="scripts and instructions")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time after which no edit is asked for")
    parser.add_argument("--dtype", default="bfloat16", help="type that the server computes in")
    parser.add_argument("--slots", type=int, default=2, help="scripts at a time")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/coder"))
    parser.add_argument("--work", type=user_path, default=Path("runs/coder"), help="folder of what is already done")
    options = parser.parse_args(argv)
    work = options.work / options.model.name
    work.mkdir(parents=True, exist_ok=True)
    try:
        pairs = draw_pairs([load(name, options.data) for name in TASKS], options.pairs, seed=0)
        ask_model(options, pairs, work)
        edits = judge_edits(pairs, work, options.slots)
        if edits is None:
            print("the time is over; the same command continues", flush=True)
            return 1
        tokens = {name: asyncio.run(_tokens(name, options.model, work)) for name in FORMATS}
        models = read_models(options.results, "coder")
    except (ValueError, OSError, InfrastructureError) as error:
        print(f"benchmarks/coder.py: {error}", file=sys.stderr)
        return 2
    figures = summarize(pairs, edits, tokens)
    write_models(options.results, "coder", models, options.model.name, figures, markdown, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
