"""Measure how many responses of an untrained model are valid actions, freely sampled and constrained by the grammar.

    python -m benchmarks.acting MODEL [--system full] [--states 64] [--dtype bfloat16] [--seed 0] [--concurrent 16]
                                [--out runs/acting] [--results benchmarks/results/acting]

MODEL is a Hugging Face directory, which the benchmark serves. The states are starts of episodes of the bundled tasks
and states within the scripted expert's trajectories, as evenly over tasks and depths as possible, the same for every
model. The model answers each once at temperature 1; the responses are parsed, not carried out. What is done is in the
folder `--out` and is not repeated. Adds the model under that system message to acting.json and acting.md.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from benchmarks.expert_states import expert_states
from benchmarks.figures import table, wilson
from benchmarks.learning import sample
from benchmarks.model_results import read_models, write_models
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.run.context import open_run_context
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.progress import Reporter
from rollout.errors import InfrastructureError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.sampling.episode import draw_seed
from rollout.sampling.state_pool import PoolState
from rollout.storage.blob_store import digest_of
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Completion
from tasks.action import Action, Invalid, InvalidKind
from tasks.quoting import user_path
from tasks.response import parse_response
from tasks.response_grammar import response_grammar
from tasks.system_text import Kind as SystemKind
from tasks.system_text import system_text

MAX_TOKENS = 400
MAX_MODEL_LEN = 8192
KINDS = ("free", "grammar")
TRAJECTORIES_PER_TASK = 2
CONFIG = Path("configs/quickstart.yaml")  # the bundled tasks, the scripted expert and coder


@dataclass(frozen=True)
class Options:
    """The settings of the measurement.

    Attributes:
        model: The Hugging Face directory.
        system: The kind of system message.
        num_states: The number of states.
        dtype: The type that the server computes in.
        seed: The seed of states and responses.
        num_concurrent: The number of requests at one time; one piece of work.
        out: The folder of what is done.
    """

    model: Path
    system: SystemKind
    num_states: int
    dtype: str
    seed: int
    num_concurrent: int
    out: Path

    @property
    def name(self) -> str:
        """The model and its system message, the name of the measurement."""
        return f"{self.model.resolve().name}, {self.system}"

    @cached_property
    def system_text(self) -> str:
        """The system message."""
        return system_text(self.system, load_config(CONFIG, []).observation.script_lines)

    @property
    def folder(self) -> Path:
        """The folder of the server's log and of the responses; another one if the text of the message changes."""
        return self.out / self.model.resolve().name / f"{self.system}-{digest_of(self.system_text.encode())[:8]}"


def make_states(options: Options, tokenizer: ChatTokenizer) -> list[PoolState]:
    """Return the states, from trajectories in `out/states` that are collected if they are missing."""
    run_dir = RunDir(options.out / "states")
    config = load_config(CONFIG, [f"seed={options.seed}", f"run_dir={run_dir.root}"])
    opening = open_run_context(
        run_dir,
        config.tasks,
        config.executor,
        config.prompt,
        config.observation,
        config.expert,
        config.coder,
        Reporter(),
    )
    with run_dir.lock(), opening as context:
        tasks = list(context.tasks.values())
        num = TRAJECTORIES_PER_TASK * len(tasks)
        pool = expert_states(config, context, tasks, num, options.seed, run_dir.trajectories, tokenizer)
        return sample(pool.states, options.num_states, random.Random(f"{options.seed}/acting"))


async def respond(
    options: Options, process: ServerProcess, tokenizer: ChatTokenizer, states: Sequence[PoolState], kind: str
) -> list[dict[str, Any]]:
    """Return the pieces of work of one kind: the seconds and responses of some states each; kept in a journal."""
    grammar = response_grammar(MAX_TOKENS) if kind == "grammar" else None
    client = PolicyClient(
        process.address,
        temperature=1.0,
        max_tokens=MAX_TOKENS,
        stop_ids=[tokenizer.eos_id],
        grammar=grammar,
        key=process.key,
    )
    path = options.folder / f"{kind}-{options.seed}-{len(states)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Journal(path) as journal:
        async with client:
            await client.check_grammars(tokenizer.encode, tokenizer.decode)

            async def one(index: int) -> dict[str, Any]:
                ids = tokenizer.prompt_ids(states[index].state)
                seed = draw_seed(options.seed, "acting", index)
                (completion,) = await client.sample(ids, num_samples=1, seed=seed)
                return record(completion, tokenizer)

            pieces = list(journal.records)
            done = sum(len(piece["responses"]) for piece in pieces)
            if done < len(states):  # not timed, because the server's first requests compile kernels
                await asyncio.gather(*map(one, range(min(options.num_concurrent, len(states)))))
            for first in range(done, len(states), options.num_concurrent):
                began = time.monotonic()
                indices = range(first, min(first + options.num_concurrent, len(states)))
                responses = await asyncio.gather(*map(one, indices))
                piece = {"seconds": round(time.monotonic() - began, 3), "responses": responses}
                journal.append(piece)
                pieces.append(piece)
                print(f"{kind}: {indices.stop} of {len(states)} responses", file=sys.stderr, flush=True)
    return pieces


def record(completion: Completion, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Return a response as JSON values."""
    return {
        "text": tokenizer.decode(completion.token_ids),
        "num_tokens": len(completion.token_ids),
        "end": completion.finish_reason,
    }


def summarize(pieces: Sequence[Mapping[str, Any]], depths: Sequence[int]) -> dict[str, Any]:
    """Return the figures of the responses of one kind, shares among all of them except `lenient`.

    `valid` is `{mean, low, high}` with Wilson's 95 % interval, and `valid_first` the same of the states without turns,
    which show the model no response to imitate; None if there are none. `invalid` has the share of each reason, `cut`
    is the share that the limit of tokens ended, and `lenient` the share of valid responses that are not exact.

    Args:
        pieces: The pieces of work, whose responses are in the order of the states.
        depths: The number of turns of each state.
    """
    responses = [response for piece in pieces for response in piece["responses"]]
    parsed = [parse_response(response["text"]) for response in responses]
    reasons = Counter(one.action.kind for one in parsed if isinstance(one.action, Invalid))
    num, num_valid = len(responses), len(parsed) - reasons.total()
    num_tokens, seconds = sum(each["num_tokens"] for each in responses), sum(piece["seconds"] for piece in pieces)
    lenient = sum(one.needed_leniency for one in parsed)
    first = [isinstance(one.action, Action) for one, depth in zip(parsed, depths, strict=True) if depth == 0]
    return {
        "num_responses": num,
        "num_valid": num_valid,
        "valid": wilson(num_valid, num),
        "valid_first": wilson(sum(first), len(first)) if first else None,
        "invalid": {kind.value: round(reasons[kind] / num, 4) for kind in InvalidKind},
        "cut": round(sum(each["end"] == "length" for each in responses) / num, 4),
        "lenient": round(lenient / num_valid, 4) if num_valid else None,
        "mean_tokens": round(num_tokens / num, 1),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(num_tokens / seconds, 1),
    }


def measure(options: Options) -> dict[str, Any]:
    """Return the figures of one model.

    Raises:
        ValueError: If the model cannot be served or there are too few states.
        InfrastructureError: If a sandbox or the server failed.
    """
    tokenizer = ChatTokenizer(options.model, options.system_text)
    states = make_states(options, tokenizer)
    if len(states) < options.num_states:
        raise ValueError(f"--states={options.num_states}: there are {len(states)} states; ask for fewer")
    server = ServerOptions(dtype=options.dtype, max_model_len=MAX_MODEL_LEN, kv_cache_mb=1500, seed=options.seed)
    log = options.folder / "server.log"
    with ServerProcess(options.model, log, server) as process:
        pieces = {kind: asyncio.run(respond(options, process, tokenizer, states, kind)) for kind in KINDS}
    depths = [state.depth for state in states]
    counts = Counter(depths)
    return {
        "num_states": len(states),
        "num_tasks": len({state.instance.task.name for state in states}),
        "states_by_depth": {str(depth): counts[depth] for depth in sorted(counts)},
        "mean_prompt_tokens": round(sum(len(tokenizer.prompt_ids(each.state)) for each in states) / len(states), 1),
        "dtype": options.dtype,
        "num_concurrent": options.num_concurrent,
        **{kind: summarize(pieces[kind], depths) for kind in KINDS},
    }


def markdown(models: Mapping[str, Any]) -> str:
    """Return the figures of all models as text and tables."""
    valid: list[list[object]] = [
        ["model", "sampling", "valid", "95 %", "valid in first step", "needed leniency", "cut at the limit"]
    ]
    reasons: list[list[object]] = [["model", "sampling", *(kind.value.replace("_", " ") for kind in InvalidKind)]]
    speed: list[list[object]] = [["model", "sampling", "tokens per response", "seconds", "tokens/s"]]
    for name, found in models.items():
        for kind in KINDS:
            each = found[kind]
            share = each["valid"]
            lenient = "" if each["lenient"] is None else f"{each['lenient']:.0%}"
            counts = f"{each['num_valid']} of {each['num_responses']}"
            interval = f"{share['low']:.1%} to {share['high']:.1%}"
            first = "" if each["valid_first"] is None else f"{each['valid_first']['mean']:.0%}"
            counts = f"{counts} ({share['mean']:.1%})"
            valid.append([name, kind, counts, interval, first, lenient, f"{each['cut']:.1%}"])
            reasons.append([name, kind, *(f"{each['invalid'][reason.value]:.1%}" for reason in InvalidKind)])
            speed.append([name, kind, each["mean_tokens"], each["seconds"], each["tokens_per_second"]])
    made = "\n".join(
        f"- {name}: {found['num_states']} states of {found['num_tasks']} tasks, {found['mean_prompt_tokens']:g} tokens "
        f"of prompt on average, {found['num_concurrent']} requests at one time, {found['dtype']}, "
        f"{found['machine']['cores']} cores of {found['machine']['processor']}, commit {found['commit']}; "
        f"`{found['command']}`"
        for name, found in models.items()
    )
    return f"""# Valid actions without training

Each model answers each state once at temperature 1, with at most {MAX_TOKENS} tokens. `free` samples from the whole \
distribution, `grammar` under that of `tasks/response_grammar.py`. Intervals are Wilson's. The share that needed \
leniency is of the valid responses. In the first step the model has only the task; later it also has the responses \
of the scripted expert before its own, which it can imitate.

{table(valid)}

Reasons why the others are no valid action, as shares of all responses:

{table(reasons)}

{table(speed)}

{made}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=user_path, help="Hugging Face directory")
    parser.add_argument("--system", choices=get_args(SystemKind), default="full", help="kind of system message")
    parser.add_argument("--states", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrent", type=int, default=16, help="requests at one time")
    parser.add_argument("--out", type=user_path, default=Path("runs/acting"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/acting"))
    given = parser.parse_args(argv)
    options = Options(given.model, given.system, given.states, given.dtype, given.seed, given.concurrent, given.out)
    try:
        models = read_models(given.results, "acting")
        found = measure(options)
    except (ValueError, OSError, InfrastructureError) as error:
        print(f"benchmarks/acting.py: {error}", file=sys.stderr)
        return 2
    write_models(given.results, "acting", models, options.name, found, markdown, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
