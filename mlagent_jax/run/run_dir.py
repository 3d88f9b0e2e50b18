"""The run directory: where each thing of a run lies, and which of its stages are done.

A stage's record `stages/<stage>.json` is written last and at once, so it is there only when its output is whole. It
holds a fingerprint of the stage's inputs: the settings it reads and the outputs of the stages before it. While a stage
is under way its fingerprint stands in `stages/<stage>.started`, so that an interrupted stage goes on from its own
partial output, and never from that of other inputs.
"""

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.loading import to_dict
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.run.mirror import Mirror
from rollout.storage.atomic_write import write_json
from tasks.registry import find

SHARE_SECONDS = 300.0  # between two copies while there is no checkpoint to wait for


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: what it is called on the command line.
        settings: the keys and sections of the configuration that its output depends on.
        after: the stages whose output it reads.
        outputs: what it writes, relative to the run directory.
    """

    name: str
    settings: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


def _writer(name: str) -> tuple[str, ...]:
    """Return the settings of a writer that tell what it writes; the others tell where, how fast and for how much."""
    return tuple(f"{name}.{key}" for key in ("kind", "model", "max_response_tokens"))


STAGES = (
    Stage(
        "collect",
        ("seed", "tasks.held_in", *_writer("expert"), *_writer("coder"), "ideas", "collect"),
        (),
        ("ideas.json", "trajectories"),
    ),
    Stage(
        "sft",
        ("seed", "select", "tokenizer", "model", "optimizer_state.dtype", "sft"),
        ("collect",),
        ("selection.json", "tokenizer", "sft"),
    ),
    Stage(
        "ppo",
        ("seed", *_writer("coder"), "optimizer_state.dtype", "server.dtype", "server.max_model_len", "reward", "ppo"),
        ("collect", "sft"),
        ("ppo",),
    ),
    Stage("evaluate", ("seed", "tasks.held_in", "tasks.held_out", "evaluate"), ("sft", "ppo"), ("evaluate",)),
    Stage("export", (), ("ppo",), ("export",)),
)
BY_NAME = {stage.name: stage for stage in STAGES}


class RunDir:
    """A run's folder and the state of its stages; hold `lock()` while writing into it."""

    def __init__(self, root: Path, mirror: Mirror | None = None) -> None:
        """Make the run directory at `root`; `mirror` is its copy elsewhere, where there is one."""
        self.root, self.mirror = root, mirror
        self._shared, self._sharing = time.monotonic(), threading.Lock()

    def path(self, *parts: str) -> Path:
        """Return a path inside the run directory."""
        return self.root.joinpath(*parts)

    @property
    def selection(self) -> Path:
        """Which trajectories are trained on."""
        return self.path("selection.json")

    @property
    def tokenizer(self) -> Path:
        """The policy's tokenizer."""
        return self.path("tokenizer")

    @property
    def sft_policy(self) -> Path:
        """The fine-tuned policy, a Hugging Face directory."""
        return self.path("sft", "model")

    @property
    def ppo_policy(self) -> Path:
        """The policy after PPO, a Hugging Face directory."""
        return self.path("ppo", "model")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory, making it first; the lock ends with the process, however that ends.

        Raises:
            ConfigError: if another process holds it.
            OSError: if the directory cannot be made or written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.path(".lock"), "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise ConfigError(
                    f"{self.root} is in use by process {holder}; wait for it to end, or give another run_dir="
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def share(self, every_seconds: float = 0.0) -> None:
        """Bring the copy of the run directory up to date, where there is one, unless that was done a moment ago.

        Raises:
            InfrastructureError: if that fails for good.
        """
        if self.mirror is None:
            return
        with self._sharing:  # one copy at a time, whichever thread asks for it
            if time.monotonic() - self._shared >= every_seconds:
                self.mirror.push()
                self._shared = time.monotonic()

    def record(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, None where it has none or its output is gone."""
        record = self._read(f"{name}.json")
        if record is None or not all(self.path(output).exists() for output in BY_NAME[name].outputs):
            return None
        return record

    def inputs(self, stage: Stage, config: Config) -> dict[str, Any]:
        """Return everything the output of `stage` depends on: settings, tasks, the outputs of the stages before it."""
        tree = to_dict(config)
        found = {
            f"{key}.{leaf}" if leaf else key: value for key in stage.settings for leaf, value in _leaves(tree, key)
        }
        for split in {"tasks.held_in", "tasks.held_out"} & set(stage.settings):
            for name in getattr(config.tasks, split.removeprefix("tasks.")):
                found[f"the task {name}"] = find(name, config.tasks.paths).identity()
        for name in stage.after:
            record = self.record(name)
            found[f"the output of {name}"] = None if record is None else record["output_id"]
        return found

    def is_done(self, stage: Stage, config: Config) -> bool:
        """Return whether the output of `stage` is there and its inputs, and theirs, are still the same."""
        record = self.record(stage.name)
        if record is None or record["fingerprint"] != fingerprint(self.inputs(stage, config)):
            return False
        return all(self.is_done(BY_NAME[name], config) for name in stage.after)

    def require(self, stage: Stage, config: Config) -> None:
        """Raise ConfigError unless the stages that `stage` reads from are done with this configuration."""
        for name in stage.after:
            if self.is_done(BY_NAME[name], config):
                continue
            changed = self.changed(BY_NAME[name], config)
            why = f"was made with other inputs ({', '.join(changed)})" if changed else "is not finished"
            raise ConfigError(f"stage={stage.name} reads the output of {name}, which {why}; run stage={name} first")

    def changed(self, stage: Stage, config: Config) -> list[str]:
        """Return the names of the inputs that changed since `stage` was last started; empty if it never was."""
        started = self._read(f"{stage.name}.started")
        if started is None:
            return []
        now = self.inputs(stage, config)
        before = started["inputs"]
        return sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))

    def begin(self, stage: Stage, config: Config) -> str:
        """Mark `stage` as under way and returns what it starts from, in words, empty for nothing.

        Partial output of the same inputs stays, to go on from. Output of other inputs is not deleted but moved to
        `replaced/`, for it may have been dear.
        """
        inputs = self.inputs(stage, config)
        mark = fingerprint(inputs)
        started = self._read(f"{stage.name}.started")
        self.path("stages").mkdir(exist_ok=True)
        there = [output for output in stage.outputs if self.path(output).exists()]
        words = ""
        if there and started is not None and started["fingerprint"] == mark:
            # A finished record here means that part of the output was taken away, or an input made anew.
            words = "going on where it stopped"
        elif there:
            aside = self._set_aside(stage, there, started["fingerprint"] if started else "unknown")
            changed = ", ".join(self.changed(stage, config)) or "it was never finished"
            words = f"its inputs changed ({changed}); the earlier output is in {aside}"
        self.path("stages", f"{stage.name}.json").unlink(missing_ok=True)
        write_json(self.path("stages", f"{stage.name}.started"), {"fingerprint": mark, "inputs": inputs})
        return words

    def finish(self, stage: Stage, config: Config, figures: Mapping[str, Any], seconds: float) -> None:
        """Write the record of a finished stage; `seconds` is its wall clock in this process."""
        inputs = self.inputs(stage, config)
        mark = fingerprint(inputs)
        output_id = fingerprint({"inputs": mark, "finished_ns": time.time_ns()})
        record = {"fingerprint": mark, "output_id": output_id, "seconds": round(seconds, 1), "figures": dict(figures)}
        write_json(self.path("stages", f"{stage.name}.json"), {**record, "inputs": inputs})

    def _set_aside(self, stage: Stage, outputs: list[str], mark: str) -> Path:
        aside = self.path("replaced", f"{stage.name}-{mark[:8]}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path("replaced", f"{stage.name}-{mark[:8]}-{number}")
        aside.mkdir(parents=True)
        for output in outputs:
            self.path(output).rename(aside / output)
        return aside

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path("stages", name)
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}); delete it to have the stage done again") from None


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return a hash of JSON values that does not depend on the order of their keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _leaves(tree: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a section as (name in it, value), or those of one key as (``, value)."""
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    if isinstance(value, dict):
        yield from value.items()
    else:
        yield "", value
