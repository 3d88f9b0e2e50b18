"""Records of the finished stages of a run and of the inputs of their outputs.

The record `stages/<stage>.json` of a stage is written last and atomically, so it exists only if the output is complete.
It holds a fingerprint of the stage's inputs: the settings it depends on and the outputs of the stages before it. While
a stage runs, its fingerprint is in `stages/<stage>.started`, so that an interrupted stage resumes from its own partial
output and never from that of other inputs.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlagent_jax.configuration.schema import ConfigError
from rollout.storage.atomic_write import write_json
from rollout.storage.run_layout import RunLayout
from tasks.checksum import read_sealed, sealed
from tasks.quoting import shell_command
from tasks.registry import find
from tasks.system_text import system_text

SCHEMA = 2  # of a run directory: the names in its records, figures and settings; 1 had no number and said train, heldin

KEYS = {  # of a record by the end of its name, besides the schema
    ".json": {"fingerprint", "output_id", "seconds", "figures", "inputs"},
    ".started": {"fingerprint", "inputs"},
}


@runtime_checkable
class Recorded(Protocol):
    """The part of a stage that its record depends on."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys and sections of the configuration that the output depends on."""
        ...

    @property
    def version(self) -> int:
        """The version of how it makes its output from the settings."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """The names of the stages whose output it reads."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files and folders that it writes, relative to the run directory."""
        ...


class StageRecords:
    """The records of a run's stages under the present settings."""

    def __init__(self, layout: RunLayout, stages: Sequence[Recorded], settings: Mapping[str, Any]) -> None:
        """Open the records of a run directory.

        Args:
            layout: The paths of the run directory.
            stages: All stages of a run.
            settings: The configuration as nested dictionaries of plain values.

        Raises:
            ConfigError: If a record has another schema or is damaged.
        """
        self._layout, self._settings = layout, settings
        self._stages = {stage.name: stage for stage in stages}
        for path in sorted(layout.stages.glob("*.json")) + sorted(layout.stages.glob("*.started")):
            schema = _read(path).get("schema")
            if schema != SCHEMA:
                raise ConfigError(
                    f"{layout.root} was made by another version of mlagent_jax: {path.name} has schema {schema}, "
                    f"expected {SCHEMA}; start a new run_dir, or use the version that made it"
                )

    def record(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, None if it has none or part of its output is gone."""
        record = self._read(f"{name}.json")
        if record is None or not all(self._layout.path(output).exists() for output in self._stages[name].outputs):
            return None
        return record

    def inputs(self, name: str) -> dict[str, Any]:
        """Return everything that a stage's output depends on: settings, tasks, version, and outputs of earlier stages.

        A stage with the section `prompt` also depends on the text of the system message, which the settings only name.
        """
        stage = self._stages[name]
        found = {
            f"{key}.{leaf}" if leaf else key: value
            for key in stage.settings
            if key != "adapter" or self._begins_adapter(name)
            for leaf, value in _leaves(self._settings, key)
        }
        tasks = self._settings["tasks"]
        for split in {"tasks.held_in", "tasks.held_out"} & set(stage.settings):
            for task in tasks[split.removeprefix("tasks.")]:
                found[f"the task {task}"] = find(task, tasks["paths"]).identity()
        if "prompt" in stage.settings:
            text = system_text(self._settings["prompt"]["system"], self._settings["observation"]["script_lines"])
            found["the text of the system message"] = hashlib.sha256(text.encode()).hexdigest()
        if stage.version > 1:
            found["the version of the stage"] = stage.version
        for earlier in stage.after:
            record = self.record(earlier)
            found[f"the output of {earlier}"] = None if record is None else record["output_id"]
        return found

    def _begins_adapter(self, name: str) -> bool:
        """Return whether there is an adapter that this stage is the first to train; others depend on it by that one."""
        adapter = self._settings["adapter"]
        return adapter["rank"] is not None and adapter["first_stage"] == name

    def is_done(self, name: str) -> bool:
        """Return whether a stage's output exists and its inputs, and those of the stages before it, are the same."""
        record = self.record(name)
        if record is None or record["fingerprint"] != fingerprint(self.inputs(name)):
            return False
        return all(self.is_done(earlier) for earlier in self._stages[name].after)

    def require_earlier(self, name: str) -> None:
        """Raise ConfigError unless the stages whose output `name` reads are done under these settings."""
        for earlier in self._stages[name].after:
            if self.is_done(earlier):
                continue
            changed = self.changed(earlier)
            why = f"was made with other inputs ({', '.join(changed)})" if changed else "is not finished"
            raise ConfigError(f"stage={name} reads the output of {earlier}, which {why}; run stage={earlier} first")

    def changed(self, name: str) -> list[str]:
        """Return the names of the inputs that changed since a stage was last started; empty if it never was."""
        started = self._read(f"{name}.started")
        if started is None:
            return []
        now, before = self.inputs(name), started["inputs"]
        return sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))

    def begin(self, name: str, before_replacing: Callable[[Path], None] = lambda folder: None) -> str:
        """Record that a stage is running, and return a description of the output that it resumes from, empty if none.

        Partial output of the same inputs stays, to resume from. Output of other inputs is moved to `replaced/` instead
        of deleted, because it may have been expensive.

        Args:
            name: The name of the stage.
            before_replacing: Called with the folder that output is about to be moved to, again if a kill follows.
        """
        inputs = self.inputs(name)
        current = fingerprint(inputs)
        started = self._read(f"{name}.started")
        self._layout.stages.mkdir(parents=True, exist_ok=True)
        existing = [output for output in self._stages[name].outputs if self._layout.path(output).exists()]
        note = ""
        if existing and started is not None and started["fingerprint"] == current:
            # If the stage was finished, part of its output was removed since, or an earlier stage was run again.
            note = "going on where it stopped"
        elif existing:
            folder = self._free_folder(name, started["fingerprint"] if started else "unknown")
            before_replacing(folder)
            for output in existing:
                self._layout.path(output).rename(folder / output)
            changed = ", ".join(self.changed(name)) or "it was never finished"
            note = f"its inputs changed ({changed}); the earlier output is in {folder}"
        self._path(f"{name}.json").unlink(missing_ok=True)
        started = {"schema": SCHEMA, "fingerprint": current, "inputs": inputs}
        write_json(self._path(f"{name}.started"), sealed(started))
        return note

    def finish(self, name: str, figures: Mapping[str, Any], seconds: float) -> None:
        """Write the record of a finished stage; `seconds` is its wall-clock time in this process."""
        inputs = self.inputs(name)
        current = fingerprint(inputs)
        record = {
            "schema": SCHEMA,
            "fingerprint": current,
            "output_id": fingerprint({"inputs": current, "finished_ns": time.time_ns()}),
            "seconds": round(seconds, 1),
            "figures": dict(figures),
            "inputs": inputs,
        }
        write_json(self._path(f"{name}.json"), sealed(record))

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each finished stage, with `seconds` and `up_to_date`."""
        found = {}
        for name in self._stages:
            record = self.record(name)
            if record is not None:
                found[name] = {"seconds": record["seconds"], "up_to_date": self.is_done(name), **record["figures"]}
        return found

    def _free_folder(self, name: str, earlier: str) -> Path:
        """Make a folder in `replaced/` for output of the inputs with the fingerprint `earlier`."""
        base = folder = self._layout.replaced / f"{name}-{earlier[:8]}"
        number = 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
        folder.mkdir(parents=True)
        return folder

    def _path(self, name: str) -> Path:
        return self._layout.stages / name

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        return _read(path) if path.exists() else None


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return a SHA-256 of JSON values that does not depend on the order of their keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """Return a record, with its schema at least; raises ConfigError if it is damaged."""
    try:
        record = read_sealed(path)
        if record.get("schema") == SCHEMA and not KEYS[path.suffix] <= record.keys():
            raise ValueError(f"{path} is damaged")
        return record
    except ValueError as error:
        then = "" if path.suffix == ".json" else " from the beginning, unless it is done"
        command = shell_command("rm", path)
        raise ConfigError(f"{error}; remove it with `{command}` to run the stage {path.stem} again{then}") from None


def _leaves(tree: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a section as (name in it, value), or the one of a single key as (``, value)."""
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    if isinstance(value, dict):
        yield from value.items()
    else:
        yield "", value
