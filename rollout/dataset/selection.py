"""Select the trajectories to train on: filter, balance, split, and record the hash of each."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from rollout.dataset import filters
from rollout.dataset.filters import Keep
from rollout.errors import CorruptRecord
from rollout.options import Select
from rollout.storage.atomic_write import write_text
from rollout.storage.blob_store import digest_of
from rollout.storage.trajectories import iterate_trajectories, to_record
from rollout.types import Trajectory

SCHEMA = "mlagent_jax.selection 1"
REMEDY = "remove selection.json of the run and run the same command to select again"


@dataclass(frozen=True)
class Selection:
    """The selected trajectories, in the order of the collection.

    Attributes:
        train: Trajectory id -> SHA-256 of its record, for the trajectories to train on.
        validation: The same for those kept from fine-tuning; PPO starts in their states too.
        report: The name of every filter, how many trajectories it dropped, and the first of them.
        balance: Task -> outcome -> number of trajectories.
    """

    train: Mapping[str, str]
    validation: Mapping[str, str]
    report: Sequence[Mapping[str, Any]]
    balance: Mapping[str, Mapping[str, int]]

    @property
    def identity(self) -> str:
        """The hash of which trajectories are selected for what, and of their contents."""
        return digest_of(json.dumps([dict(self.train), dict(self.validation)]).encode())

    def read(self, folder: Path) -> Iterator[Trajectory]:
        """Yield the selected trajectories of a collection.

        Raises:
            CorruptRecord: If one of them has changed since it was selected, or is gone.
        """
        left = {**self.train, **self.validation}
        for trajectory in iterate_trajectories(folder):
            expected = left.pop(trajectory.trajectory_id, None)
            if expected is not None:
                if digest(trajectory) != expected:
                    raise CorruptRecord(
                        f"{folder}: trajectory {trajectory.trajectory_id} has changed since its selection; {REMEDY}"
                    )
                yield trajectory
        if left:
            raise CorruptRecord(f"{folder}: trajectory {min(left)} was selected and is gone; {REMEDY}")


def choose(folder: Path, rules: Select, directions: Mapping[str, str], seed: int) -> Selection:
    """Return the trajectories of a collection that the rules select. Streams the collection once.

    Args:
        folder: The folder of its Parquet files.
        rules: The rules of the selection.
        directions: Task -> `maximize` or `minimize`.
        seed: The seed of the draws: which trajectories stay if there are too many, and the split.

    Raises:
        ValueError: If two trajectories share an id, or too few are left to train on and to validate with.
    """
    named = _filters(rules, directions)
    dropped: dict[str, list[str]] = {name: [] for name in named}
    digests: dict[str, str] = {}
    cells: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    seen: set[str] = set()
    for trajectory in iterate_trajectories(folder):
        if trajectory.trajectory_id in seen:
            raise ValueError(
                f"{folder} has two trajectories {trajectory.trajectory_id}; give each its own id, or remove one"
            )
        seen.add(trajectory.trajectory_id)
        failed = next((name for name, keep in named.items() if not keep(trajectory)), None)
        if failed is not None:
            dropped[failed].append(trajectory.trajectory_id)
            continue
        digests[trajectory.trajectory_id] = digest(trajectory)
        cells[trajectory.task, filters.outcome_of(trajectory, directions)].append(trajectory.trajectory_id)
    if rules.max_trajectories is not None:
        kept = set(_evenly(cells, rules.max_trajectories, seed))
        dropped["max_trajectories"] = [name for name in digests if name not in kept]
        cells = defaultdict(list, {cell: [name for name in names if name in kept] for cell, names in cells.items()})
    left = set(chain.from_iterable(cells.values()))
    chosen, validation = (
        [name for name in digests if name in left],
        _validation_ids(cells, rules.validation_share, seed),
    )
    balance: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (task, outcome), names in sorted(cells.items()):
        balance[task][outcome] += len(names)
    if len(chosen) - len(validation) < 1 or not validation:
        counts = ", ".join(f"{name} dropped {len(names)}" for name, names in dropped.items() if names) or "none dropped"
        raise ValueError(
            f"{len(chosen)} trajectories of {folder} are left for training and validation, expected at least 2; "
            f"{counts}; loosen `select`, or collect more"
        )
    return Selection(
        train={name: digests[name] for name in chosen if name not in validation},
        validation={name: digests[name] for name in chosen if name in validation},
        report=[{"filter": name, "dropped": len(names), "first": names[:5]} for name, names in dropped.items()],
        balance={task: dict(outcomes) for task, outcomes in balance.items()},
    )


def digest(trajectory: Trajectory) -> str:
    """Return the SHA-256 of a trajectory's record, in hex."""
    return digest_of(json.dumps(to_record(trajectory), sort_keys=True).encode())


def write_selection(path: Path, selection: Selection, rules: Select, seed: int) -> None:
    """Write the manifest as JSON, atomically."""
    record = {"schema": SCHEMA, "identity": selection.identity, "seed": seed, "rules": asdict(rules)}
    write_text(path, json.dumps({**record, **asdict(selection)}, indent=1) + "\n")


def read_selection(path: Path) -> Selection:
    """Return the selection of a manifest. Raises CorruptRecord if it is damaged or of another schema."""
    try:
        record = json.loads(path.read_bytes())
        selection = Selection(**{key: record[key] for key in ("train", "validation", "report", "balance")})
        if (record["schema"], record["identity"]) != (SCHEMA, selection.identity):
            raise ValueError(f"schema {record['schema']}, expected {SCHEMA} and a hash that fits")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRecord(f"{path} is damaged, or not a selection of trajectories; {REMEDY}") from error
    return selection


def _filters(rules: Select, directions: Mapping[str, str]) -> dict[str, Keep]:
    """Return the filters by name, cheap ones first."""
    known: dict[str, Keep] = {
        "acted": filters.acted,
        "valid_format": filters.valid_format,
        "ended": filters.ended,
        "edited": filters.edited,
        "improved": filters.improved(directions),
        "no_leak": filters.no_leak,
    }
    chosen = {name: known[name] for name in rules.filters}
    if rules.max_characters is not None:
        chosen["max_characters"] = filters.within(rules.max_characters)
    if rules.max_similarity is not None:
        chosen["max_similarity"] = filters.distinct(rules.max_similarity)
    return chosen


def _evenly(cells: Mapping[tuple[str, str], Sequence[str]], count: int, seed: int) -> list[str]:
    """Return at most `count` names, round-robin over the tasks and, within a task, over its outcomes."""
    by_task: defaultdict[str, list[list[str]]] = defaultdict(list)
    for (task, outcome), names in sorted(cells.items()):
        by_task[task].append(random.Random(f"{seed}/select/{task}/{outcome}").sample(list(names), len(names)))
    return _in_turn([_in_turn(outcomes) for outcomes in by_task.values()])[:count]


def _in_turn(lists: Sequence[Sequence[str]]) -> list[str]:
    return [name for names in zip_longest(*lists) for name in names if name is not None]


def _validation_ids(cells: Mapping[tuple[str, str], Sequence[str]], share: float, seed: int) -> set[str]:
    """Return the names kept for validation: the share of each task and of all together, at least one."""
    by_task: defaultdict[str, list[str]] = defaultdict(list)
    for (task, _), names in sorted(cells.items()):
        by_task[task] += names
    drawn: dict[str, list[str]] = {
        task: random.Random(f"{seed}/select/heldout/{task}").sample(sorted(names), len(names))  # the string is a seed
        for task, names in by_task.items()
    }
    counts = {task: round(share * len(names)) for task, names in drawn.items()}
    # With many small tasks, rounding may leave none. The tasks that were rounded down most then give one more
    # trajectory each, up to the total share.
    missing = max(1, round(share * sum(map(len, drawn.values())))) - sum(counts.values())
    for task in sorted(drawn, key=lambda task: counts[task] - share * len(drawn[task]))[: max(0, missing)]:
        counts[task] += 1
    return {name for task, names in drawn.items() for name in names[: counts[task]]}
