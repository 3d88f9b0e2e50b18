"""The command `mlagent`, which runs one of the project's commands.

Each also runs as a module, such as `python -m mlagent_jax.train`. Only the module of the given command is imported.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from tasks.nearest import closest

USER_ERROR = 2


@dataclass(frozen=True)
class Command:
    """A subcommand: the module whose `main(arguments, prog)` runs it, and one line about it."""

    module: str
    text: str


COMMANDS: Mapping[str, Command] = {
    "train": Command("mlagent_jax.train", "train an agent: collect, fine-tune, PPO, evaluate, export"),
    "solve": Command("mlagent_jax.solving.command", "let an agent improve a script on your own table"),
    "evaluate": Command("mlagent_jax.evaluating.command", "evaluate agents on tasks"),
    "export": Command("mlagent_jax.export", "write a run's newest policy as a Hugging Face directory"),
    "runs": Command("mlagent_jax.browsing.command", "list the runs in a folder, or show them in a browser"),
    "track": Command("mlagent_jax.track", "send a run's figures to wandb, MLflow, Trackio or TensorBoard"),
    "tasks": Command("tasks.__main__", "list, prepare, make and validate tasks"),
    "data": Command("rollout.dataset.__main__", "view, measure, select, export and import trajectories"),
    "server": Command("mlagent_jax.server", "serve a policy with vLLM"),
    "executor": Command("rollout.executor.__main__", "check the sandbox, or run one script in it"),
    "doctor": Command("mlagent_jax.doctor.__main__", "check this machine before the first run on it"),
    "compile": Command("mlagent_jax.compile", "compute memory and time of training on GPUs or TPUs, without them"),
    "convert": Command("mlagent_jax.convert", "make a Hugging Face directory from a GGUF file"),
}
EXAMPLES = """\
examples:
  mlagent train run_dir=runs/mine ppo.num_updates=8     the quickstart with other settings
  mlagent train --config configs/smollm2_135m.yaml      a configuration of its own
  mlagent solve --csv flats.csv --target price          the agent on your own table
  mlagent data view runs/mine                           a page of all trajectories of a run

`mlagent COMMAND --help` describes a command.
`mlagent train --help-keys` prints every key of the configuration with its meaning and default."""


def help_text() -> str:
    """Return the page of `mlagent --help`."""
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:{width}}{command.text}" for name, command in COMMANDS.items())
    return f"usage: mlagent COMMAND [ARGUMENT ...]\n\ncommands:\n{commands}\n\n{EXAMPLES}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names and return its exit code, 2 for an unknown one."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        print(help_text())
        return 0
    if name not in COMMANDS:
        near = closest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"error: unknown command {name}; {hint}", file=sys.stderr)
        return USER_ERROR
    return import_module(COMMANDS[name].module).main(rest, prog=f"mlagent {name}")


if __name__ == "__main__":
    sys.exit(main())
