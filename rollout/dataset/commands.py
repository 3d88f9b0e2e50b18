"""The commands `select`, `export` and `import` of `python -m rollout.dataset`."""

import argparse
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from pydantic import ValidationError

from rollout.dataset.import_counts import ImportCounts
from rollout.dataset.run_settings import recorded_system_text
from rollout.dataset.selection import choose, write_selection
from rollout.dataset.sharegpt import read_sharegpt, write_sharegpt
from rollout.options import FilterName, Observation, Select
from rollout.storage.shards import PART_SIZE
from rollout.storage.trajectories import iterate_trajectories, trajectories_of, write_trajectories
from rollout.types import Trajectory
from tasks.quoting import setting, user_path
from tasks.registry import entries
from tasks.system_text import Kind, system_text

DEFAULT = Select()
LINES = Observation.script_lines
MAX_INVALID_SHARE = 0.9


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers of the program."""
    text = "show which trajectories of a collection the section `select` would keep"
    select = commands.add_parser("select", help=text, description=text)
    select.add_argument("folder", type=user_path, help="run directory, or folder of trajectories")
    select.add_argument("--filters", default=",".join(DEFAULT.filters), help="comma-separated names: %(default)s")
    select.add_argument("--max-characters", type=int)
    select.add_argument("--max-similarity", type=float, default=DEFAULT.max_similarity)
    select.add_argument("--max-trajectories", type=int)
    select.add_argument("--validation-share", type=float, default=DEFAULT.validation_share)
    select.add_argument("--seed", type=int, default=0)
    select.add_argument("--path", type=user_path, action="append", default=[], help="folder with your own tasks")
    select.add_argument("--out", type=user_path, help="file to write the manifest to")
    select.set_defaults(run=run_select)
    text = "write a collection as ShareGPT conversations, one JSON object per line"
    export = commands.add_parser("export", help=text, description=text)
    export.add_argument("folder", type=user_path, help="run directory, or folder of trajectories")
    export.add_argument("--out", type=user_path, required=True, help="file to write, such as data.jsonl")
    export.add_argument(
        "--system",
        choices=get_args(Kind),
        help="system message of the conversations (default: the one that the run's config.yaml records)",
    )
    export.set_defaults(run=run_export)
    text = "turn conversations of ShareGPT's or OpenAI's form into trajectories, for collect.source=FOLDER"
    imported = commands.add_parser("import", help=text, description=text)
    imported.add_argument("file", type=user_path, help="JSON list of conversations, or one conversation per line")
    imported.add_argument("--out", type=user_path, required=True, help="folder to create")
    imported.add_argument(
        "--max-invalid-share",
        type=float,
        default=MAX_INVALID_SHARE,
        metavar="SHARE",
        help="import nothing if more of the answers are no valid action (default: %(default)s)",
    )
    imported.set_defaults(run=run_import)


def run_select(options: argparse.Namespace) -> None:
    """Print the trajectories that each filter drops and each task keeps. Raises ValueError for an unknown filter."""
    names = tuple(name for name in options.filters.split(",") if name)
    for name in names:
        if name not in get_args(FilterName):
            raise ValueError(f"no filter {name!r}; there are {', '.join(get_args(FilterName))}")
    try:
        rules = Select(
            filters=names,
            max_characters=options.max_characters,
            max_similarity=options.max_similarity,
            max_trajectories=options.max_trajectories,
            validation_share=options.validation_share,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        expected = first["msg"].removeprefix("Input should be ")
        raise ValueError(f"--{option}: got {first['input']}, expected a number {expected}") from None
    directions = {name: entry.direction for name, entry in entries(options.path).items()}
    selection = choose(trajectories_of(options.folder), rules, directions, options.seed)
    for each in selection.report:
        first = f" ({', '.join(each['first'])}, ...)" if each["first"] else ""
        print(f"{each['filter']}: {each['dropped']} dropped{first}")
    for task, outcomes in selection.balance.items():
        print(f"{task}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")
    print(f"{len(selection.train)} to train on, {len(selection.validation)} held out, {selection.identity}")
    if options.out is not None:
        write_selection(options.out, selection, rules, options.seed)


def run_export(options: argparse.Namespace) -> None:
    """Write the conversations, and print how many there are and how many trajectories have none.

    Raises:
        ValueError: If no trajectory has an action, or the system message is not known; nothing is written then.
    """
    folder, num_empty = trajectories_of(options.folder), 0
    system = system_text(options.system, LINES) if options.system else recorded_system_text(options.folder)
    if system is None:
        raise ValueError(
            f"{options.folder} has no config.yaml with the section `prompt`, so the system message is not known; give "
            f"--system {' or --system '.join(get_args(Kind))}"
        )

    def trajectories_with_actions() -> Iterator[Trajectory]:
        nonlocal num_empty
        for trajectory in iterate_trajectories(folder):
            if trajectory.steps:
                yield trajectory
            else:
                num_empty += 1

    acted = trajectories_with_actions()
    first = next(acted, None)
    if first is None:
        raise ValueError(f"{folder} has {num_empty} trajectories, none with an action to export; collect again")
    count = write_sharegpt(options.out, chain([first], acted), system)
    left_out = f"; {num_empty} trajectories without an action are left out" if num_empty else ""
    print(f"{count} conversations{left_out}")


def run_import(options: argparse.Namespace) -> None:
    """Write all trajectories or none, and print their number and what they lack of the conversations.

    Raises:
        ValueError: If the folder is not empty, there are no conversations, or one is malformed.
        WorthlessResult: If too large a share of the answers are no valid action.
    """
    if not 0 <= options.max_invalid_share <= 1:
        raise ValueError(f"--max-invalid-share: got {options.max_invalid_share:g}, expected a number from 0 to 1")
    if options.out.exists() and any(options.out.iterdir()):
        raise ValueError(f"{options.out} is not empty; name another --out")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    counts = ImportCounts()
    count, trajectories = 0, read_sharegpt(options.file, counts)
    with TemporaryDirectory(prefix=f".{options.out.name}.", dir=options.out.parent) as folder:
        unfinished = Path(folder, "whole")
        unfinished.mkdir()
        while part := list(islice(trajectories, PART_SIZE)):
            write_trajectories(unfinished / f"part-{count // PART_SIZE:05d}.parquet", part)
            count += len(part)
        if not count:
            raise ValueError(f"{options.file} has no conversations; nothing is imported")
        for line in counts.lines():
            print(line)
        counts.require_actions(options.max_invalid_share)
        unfinished.replace(options.out)
    print(f"{count} trajectories in {options.out}; train on them with {setting('collect.source', str(options.out))}")
