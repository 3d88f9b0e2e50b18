"""The commands `select`, `export` and `import` of `python -m rollout.dataset`."""

import argparse
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from rollout.dataset.selection import choose, write_selection
from rollout.dataset.sharegpt import read_sharegpt, write_sharegpt
from rollout.options import FilterName, Select
from rollout.storage.shards import PART_SIZE
from rollout.storage.trajectories import iterate_trajectories, trajectories_of, write_trajectories
from tasks.registry import entries

DEFAULT = Select()


def add_parser(commands: Any) -> None:
    """Add the commands to those of the program."""
    select = commands.add_parser("select", help="what filters would keep of a collection, as the section `select` does")
    select.add_argument("folder", type=Path, help="run directory, or folder of trajectories")
    select.add_argument("--filters", default=",".join(DEFAULT.filters), help="names with commas: %(default)s")
    select.add_argument("--max-characters", type=int)
    select.add_argument("--max-similarity", type=float, default=DEFAULT.max_similarity)
    select.add_argument("--max-trajectories", type=int)
    select.add_argument("--validation-share", type=float, default=DEFAULT.validation_share)
    select.add_argument("--seed", type=int, default=0)
    select.add_argument("--path", type=Path, action="append", default=[], help="folder with tasks of your own")
    select.add_argument("--out", type=Path, help="file for the manifest")
    select.set_defaults(run=run_select)
    export = commands.add_parser("export", help="a collection as ShareGPT conversations, one JSON object a line")
    export.add_argument("folder", type=Path, help="run directory, or folder of trajectories")
    export.add_argument("--out", type=Path, required=True, help="file to write, such as data.jsonl")
    export.set_defaults(run=run_export)
    taken = commands.add_parser("import", help="ShareGPT conversations as trajectories, for collect.source=FOLDER")
    taken.add_argument("file", type=Path, help="JSON list of conversations, or one a line")
    taken.add_argument("--out", type=Path, required=True, help="folder to make")
    taken.set_defaults(run=run_import)


def run_select(options: argparse.Namespace) -> None:
    """Print what every filter drops and what is left of each task. Raises ValueError for what is no rule."""
    names = tuple(name for name in options.filters.split(",") if name)
    for name in names:
        if name not in get_args(FilterName):
            raise ValueError(f"no filter {name!r}; there are {', '.join(get_args(FilterName))}")
    rules = Select(
        filters=names,
        max_characters=options.max_characters,
        max_similarity=options.max_similarity,
        max_trajectories=options.max_trajectories,
        validation_share=options.validation_share,
    )
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
    """Write the conversations and prints how many."""
    print(f"{write_sharegpt(options.out, iterate_trajectories(trajectories_of(options.folder)))} conversations")


def run_import(options: argparse.Namespace) -> None:
    """Write the trajectories, all or none, and prints how many. Raises ValueError where the folder has files."""
    if options.out.exists() and any(options.out.iterdir()):
        raise ValueError(f"{options.out} has files already; name another --out")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    count, found = 0, read_sharegpt(options.file)
    with TemporaryDirectory(prefix=f".{options.out.name}.", dir=options.out.parent) as folder:
        aside = Path(folder, "whole")
        aside.mkdir()
        while part := list(islice(found, PART_SIZE)):
            write_trajectories(aside / f"part-{count // PART_SIZE:05d}.parquet", part)
            count += len(part)
        aside.replace(options.out)
    print(f"{count} trajectories in {options.out}; train on them by collect.source={options.out}")
