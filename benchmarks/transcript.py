"""Print one trajectory of a run as Markdown: the actions, shortened diffs and scores of a few steps.

    python -m benchmarks.transcript RUN [--policy ppo] [--split held_out] [--steps 5] [--id TRAJECTORY_ID]

RUN is a run directory. `--policy` names an evaluated policy (`sft` or `ppo`), or `expert` for the collected
trajectories. Without `--id`, the trajectory is the one in which the most edits improved the hidden score; ties go to
the one with the larger final gain. The last line says how many trajectories there were and their mean gain.
"""

import argparse
import sys
from collections.abc import Sequence

from rollout.storage.run_layout import RunLayout
from rollout.storage.trajectories import iterate_trajectories
from rollout.types import Step, Trajectory
from tasks.action import is_edit
from tasks.metric import better_direction
from tasks.quoting import user_path
from tasks.registry import load
from tasks.task import Task

LINE_LENGTH = 96  # longest line of code in the transcript
MAX_DIFF_LINES = 4  # per step


def num_improvements(trajectory: Trajectory, task: Task) -> int:
    """Return the number of steps that moved the hidden score toward m_best."""
    return sum(task.is_better(step.after.metric, step.before.metric) for step in trajectory.steps)


def shorten(text: str) -> str:
    """Return a line of at most `LINE_LENGTH` characters, its middle cut out."""
    if len(text) <= LINE_LENGTH:
        return text
    half = (LINE_LENGTH - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def describe_step(number: int, step: Step, task: Task) -> list[str]:
    """Return the lines of one step: the action, its diff or output, and the scores after it."""
    arguments = dict(step.arguments)
    if is_edit(step.action):
        description = f'{step.action} on {arguments["script_name"]}: "{arguments["edit_instruction"]}"'
    else:
        description = f"{step.action or 'not an action'}: {', '.join(arguments.values())}"
    lines = [f"@@ {number} @@ {shorten(description)}"]
    body = step.feedback.text.splitlines()
    changed = [line for line in body if line.startswith(("+", "-"))]
    lines += [shorten(line) for line in changed[:MAX_DIFF_LINES]]
    if len(changed) > MAX_DIFF_LINES:
        lines.append(f"  ... {len(changed) - MAX_DIFF_LINES} more lines")
    if step.feedback.validation is not None and step.feedback.metric is not None:
        scores = f"validation {step.feedback.validation:.4g}, hidden {step.feedback.metric:.4g}"
        lines.append(f"  {scores}, gain {task.gain(step.feedback.metric):+.2f}")
    elif is_edit(step.action) and body:
        lines.append(f"  {shorten(body[0])}")
    return lines


def transcript(trajectory: Trajectory, task: Task, num_steps: int) -> str:
    """Return the Markdown of one trajectory: a sentence on the task, then a fenced diff."""
    better = better_direction(task.direction)
    lines = [
        f"`{trajectory.task}` ({task.split.replace('_', '-')}): {task.metric}, {better} is better; the initial script "
        f"scores {task.m_init:.4g} on the hidden labels, the best known script {task.m_best:.4g}.",
        "",
        "```diff",
    ]
    for number, step in enumerate(trajectory.steps[:num_steps], start=1):
        lines += describe_step(number, step, task)
    return "\n".join([*lines, "```"])


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=user_path, help="run directory")
    parser.add_argument("--policy", default="ppo", help="sft, ppo or expert")
    parser.add_argument("--split", choices=("held_in", "held_out"), help="take a task of this split only")
    parser.add_argument("--steps", type=int, default=5, help="most steps to print")
    parser.add_argument("--id", help="trajectory to print")
    options = parser.parse_args(argv)
    layout = RunLayout(options.run)
    folder = layout.trajectories if options.policy == "expert" else layout.evaluated(options.policy)
    try:
        trajectories = list(iterate_trajectories(folder))
        tasks = {name: load(name, layout.data) for name in {each.task for each in trajectories}}
    except (ValueError, OSError) as error:
        print(f"benchmarks/transcript.py: {error}", file=sys.stderr)
        return 2
    found = [
        each
        for each in trajectories
        if (options.split is None or tasks[each.task].split == options.split)
        and options.id in (None, each.trajectory_id)
    ]
    if not found:
        print(f"benchmarks/transcript.py: no such trajectory in {folder}; check --split and --id", file=sys.stderr)
        return 2
    gains = {each.trajectory_id: tasks[each.task].gain(each.score(tasks[each.task].m_init)) for each in found}
    best = max(found, key=lambda each: (num_improvements(each, tasks[each.task]), gains[each.trajectory_id]))
    print(transcript(best, tasks[best.task], options.steps))
    mean = sum(gains.values()) / len(gains)
    print(f"\nTrajectory {best.trajectory_id}, one of {len(found)}; their mean gain is {mean:+.2f}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
