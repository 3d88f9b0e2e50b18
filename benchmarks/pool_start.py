"""Measure the time and memory that PPO needs at its start to make the states of a large collection.

    python -m benchmarks.pool_start models/Qwen2.5-Coder-0.5B-Instruct

Trajectories are synthetic: the full system message, a problem, and turns of a response in six fields and a script, a
diff or an output. Words, numbers and instructions differ everywhere; only the scripts of a trajectory are alike. The
reference encodes the text of every state as a whole. It takes the states of the first `--reference` trajectories, whose
tokens must be equal, and its time for all of them follows by proportion.
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from rollout.sampling.state_pool import PoolState, StatePool
from rollout.tokenizer.chat import TOKENIZER_FILE, ChatTokenizer
from rollout.tokenizer.chat_format import chat_format
from rollout.tokenizer.chat_template import read_chat_template
from rollout.types import Snapshot, Step, Trajectory
from tasks import action, registry
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names, draw_names
from tasks.prompt import messages, problem_text
from tasks.quoting import user_path
from tasks.response import FACT_CHECK, REFLECTION, STATUS, THOUGHT, format_fields
from tasks.system_text import system_text
from tasks.task import Instance, Task

WORDS = (
    "model feature depth learning rate validation score column missing values encode scale split fold ensemble "
    "boosting regularize dropout layer kernel batch augment rotate text token count target outlier clip log transform"
).split()


def synthetic(number: int, num_steps: int, task: Task) -> Trajectory:
    """Return the trajectory of a number."""
    rng = random.Random(number)
    instance = Instance(task, draw_names(rng))
    script = instance.script_source() * 2
    snapshot = Snapshot({instance.names.script: "0" * 64}, 0.5, None, instance.names.script, 0.5)
    turns = (_turn(rng, index, script, instance.names) for index in range(num_steps))
    steps = tuple(
        Step(response, name, arguments, Feedback(Outcome.NON_EDIT, text), snapshot, snapshot, 1.0)
        for response, name, arguments, text in turns
    )
    text = problem_text(instance, script=script)
    return Trajectory(f"0-{number:05d}", task.name, number, instance.names, text, (), steps, "step_limit")


def _turn(rng: random.Random, index: int, script: str, names: Names) -> tuple[str, str, dict[str, str], str]:
    """Return a response, the name and arguments of its action, and the feedback: of four turns, one shows a script."""

    def prose(count: int) -> str:
        return " ".join([*rng.choices(WORDS, k=count), f"{rng.random():.4f}"])

    thoughts = {REFLECTION: prose(20), STATUS: prose(25), FACT_CHECK: prose(15), THOUGHT: prose(20)}
    if index % 4 == 0:
        name, arguments = (
            action.INSPECT,
            {"script_name": names.script, "start_line_number": "1", "end_line_number": "100"},
        )
        feedback = f"Lines 1 to 100 of {names.script}:\n{script}\n# {prose(5)}"
    elif index % 4 == 2:
        name, arguments = action.EXECUTE, {"script_name": names.script}
        feedback = "\n".join(f"epoch {epoch}: loss {rng.random():.5f} score {rng.random():.5f}" for epoch in range(20))
    else:
        instruction = prose(40)
        name = action.EDIT
        arguments = {"script_name": names.script, "edit_instruction": instruction, "save_name": names.script}
        lines = [
            f"{rng.choice('+-')}    {rng.choice(WORDS)} = {rng.choice(WORDS)}({rng.random():.3f})" for _ in range(20)
        ]
        feedback = "\n".join([f"Saved {names.script}.", *lines, f"Validation score {rng.random():.5f}"])
    return format_fields(thoughts, name, arguments), name, arguments, feedback


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=user_path, help="a checkpoint, of which only the tokenizer is read")
    parser.add_argument("--trajectories", type=int, default=10000)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--reference", type=int, default=20, help="trajectories whose states the reference tokenizes")
    parser.add_argument("--out", type=user_path, help="a file for the figures, as JSON")
    options = parser.parse_args()
    print(json.dumps(figures := measure(options), indent=1))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the figures."""
    tokenizer = ChatTokenizer(options.tokenizer, system_text("full", 100))
    task = registry.task_of(registry.find("house_price"), Path("unused"))
    trajectories = [synthetic(number, options.steps, task) for number in range(options.trajectories)]
    began, cpu, memory = time.monotonic(), time.process_time(), resident_mb()
    pool = StatePool.cut(trajectories, {task.name: task}, options.steps, tokenizer)
    seconds, memory = time.monotonic() - began, resident_mb() - memory
    cpu = time.process_time() - cpu
    few = trajectories[: options.reference]
    template, reference = (
        chat_format(read_chat_template(options.tokenizer)),
        Tokenizer.from_file(str(options.tokenizer / TOKENIZER_FILE)),
    )
    began = time.monotonic()
    texts = [
        template.prompt(messages(one.state(depth), tokenizer.system)) for one in few for depth in range(options.steps)
    ]
    expected = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    reference_seconds = (time.monotonic() - began) * len(trajectories) / len(few)
    assert [list(state.prompt) for state in pool.states[: len(expected)]] == expected, "the tokens differ"
    return {
        "trajectories": len(trajectories),
        "states": len(pool),
        "tokens_of_trajectories": sum(len(state.prompt) for state in longest(pool, options.steps)),
        "tokens_of_states": sum(len(state.prompt) for state in pool.states),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "states_mb": round(memory),
        "reference_seconds": round(reference_seconds, 1),
    }


def longest(pool: StatePool, num_steps: int) -> Iterator[PoolState]:
    """Yield the last state of each trajectory."""
    return (state for state in pool.states if state.depth == num_steps - 1)


def resident_mb() -> float:
    """Return the peak of the resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
