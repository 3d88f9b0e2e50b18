"""Records of each agent in the folder of an evaluation: identity, attempts and usage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlagent_jax.evaluating import automl
from mlagent_jax.evaluating.attempts import Attempt, from_trajectory
from mlagent_jax.evaluating.options import AgentSpec, EvaluateLayout, EvaluateOptions
from rollout.storage.atomic_write import write_json, write_text
from rollout.storage.digests import folder_digest
from rollout.storage.trajectories import iterate_trajectories
from tasks.checksum import read_sealed, sealed
from tasks.quoting import shell_command
from tasks.registry import find
from tasks.task import Task

SHARED = ("k", "steps", "minutes", "tasks")  # what agents must share to be compared
LONG = ("tasks", "weights", "coder_weights")  # values that a message does not show
DONE = "DONE"


def require_own_folder(layout: EvaluateLayout) -> None:
    """Raise ValueError if the folder holds something else, such as a run."""
    if layout.root.is_dir() and any(layout.root.iterdir()) and not layout.agents.is_dir():
        raise ValueError(f"{layout.root} holds other files; choose another --out")


def keep_identity(
    agent: AgentSpec, options: EvaluateOptions, layout: EvaluateLayout, tasks: Mapping[str, Task]
) -> None:
    """Record what the results of an agent depend on.

    Raises:
        ValueError: If the folder holds results of that name that depend on something else.
    """
    identity = options.identity(agent)
    identity["tasks"] = {name: [find(name, options.paths).identity(), tasks[name].m_init] for name in sorted(tasks)}
    if agent.is_policy:
        identity["weights"] = folder_digest(Path(agent.where))
    if options.coder.is_policy and agent.where not in ("automl", "initial"):
        identity["coder_weights"] = folder_digest(Path(options.coder.where))
    folder = layout.agent(agent.name)
    before = read_identity(folder)
    if before is not None and any(folder.glob("seed-*/*")):
        changed = sorted(key for key in identity.keys() | before.keys() if identity.get(key) != before.get(key))
        if changed:
            key = changed[0]
            values = "" if key in LONG else f" {before.get(key)}, not {identity.get(key)}"
            raise ValueError(
                f"{layout.root} holds results of {agent.name} with other {key}{values}; give the agent another name, "
                "or choose another --out"
            )
    write_json(folder / "agent.json", sealed(identity))


def read_identity(folder: Path) -> dict[str, Any] | None:
    """Return what is recorded of an agent, None if nothing is; raises ValueError if it is damaged."""
    try:
        return read_sealed(folder / "agent.json")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{error}; remove the agent's results with `{shell_command('rm', '-r', folder)}`") from None


def comparable_agents(options: EvaluateOptions, layout: EvaluateLayout) -> tuple[AgentSpec, ...]:
    """Return the agents of the command, and those that the folder has results of on the same tasks and limits."""
    named = {agent.name for agent in options.agents}
    wanted = read_identity(layout.agent(options.agents[0].name))
    others = []
    for folder in sorted(layout.agents.iterdir()):
        identity = read_identity(folder)
        if folder.name in named or identity is None or wanted is None:
            continue
        if all(identity.get(key) == wanted.get(key) for key in SHARED):
            others.append(AgentSpec(folder.name, identity["agent"], identity["model"]))
    return (*options.agents, *others)


def attempts_of(
    agent: AgentSpec, options: EvaluateOptions, layout: EvaluateLayout, tasks: Mapping[str, Task]
) -> list[Attempt]:
    """Return the attempts of an agent in the seeds that are complete."""
    found = []
    for seed in range(options.seeds):
        folder = layout.seed(agent.name, seed)
        if agent.where == "automl":
            known = [automl.recorded(folder, name) for name in tasks]
            found += [each for each in known if each is not None] if None not in known else []
        elif is_complete(folder):
            found += [from_trajectory(one, tasks[one.task], seed) for one in iterate_trajectories(folder)]
    return found


def is_complete(folder: Path) -> bool:
    """Return whether a seed of an agent has all its trajectories."""
    return (folder / DONE).exists()


def mark_complete(folder: Path) -> None:
    """Record that a seed of an agent has all its trajectories."""
    write_text(folder / DONE, "")


def read_usage(layout: EvaluateLayout, agent: str) -> dict[str, Any]:
    """Return the seconds, tokens and dollars of an agent; empty if they are unknown."""
    try:
        return read_sealed(layout.agent(agent) / "usage.json")
    except (FileNotFoundError, ValueError):
        return {}


def write_usage(layout: EvaluateLayout, agent: str, usage: Mapping[str, Any]) -> None:
    """Record the seconds, tokens and dollars of an agent."""
    write_json(layout.agent(agent) / "usage.json", sealed(dict(usage)))
