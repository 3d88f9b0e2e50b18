"""Text about the keys of the configuration, for the `--help` and `--help-keys` of the commands that take them."""

import shutil
import textwrap

from mlagent_jax.configuration.loading import keys

USEFUL_KEYS = {
    "run_dir": "folder of the run; the same command resumes it",
    "tasks.held_in": "names of the tasks to train on, such as [digit_images, house_price]",
    "tasks.held_out": "names of the tasks that are only evaluated",
    "tasks.paths": "folders of your own tasks",
    "executor.slots": "number of scripts that run at the same time",
    "expert.kind": "scripted, or endpoint for a model behind an OpenAI-compatible API",
    "coder.kind": "the same, for the model that edits scripts",
    "collect.num_trajectories": "number of expert trajectories",
    "model.path": "Hugging Face directory of the model to start from; null: from scratch",
    "mesh.fsdp": "number of devices that share parameters and batch",
    "sft.num_epochs": "passes over the trajectories in fine-tuning",
    "server.address": "a running policy server; null: the run starts its own",
    "server.gpus": "numbers of the GPUs of the run's server; null: those that the trainer leaves",
    "ppo.num_updates": "number of PPO updates",
    "seed": "seed of every random draw",
}


def useful_keys() -> str:
    """Return one line about each of the keys that most users set."""
    width = max(map(len, USEFUL_KEYS)) + 2
    return "\n".join(f"  {name:{width}}{text}" for name, text in USEFUL_KEYS.items())


def all_keys() -> str:
    """Return every key with its default and meaning, wrapped to the terminal's width."""
    width = shutil.get_terminal_size((120, 24)).columns
    lines = ["keys with their defaults, the paper's values (configs/quickstart.yaml states others, with reasons):", ""]
    for key in keys():
        lines.append(f"  {key.name}={key.default}")
        lines += textwrap.wrap(key.meaning, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
