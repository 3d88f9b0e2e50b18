"""The command `view` of `python -m rollout.dataset`."""

import argparse
import sys

from rollout.dataset.viewer.collection_page import find_collection, load_tasks, write_collection_page
from rollout.storage.run_layout import RunLayout
from tasks.quoting import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the subparsers of the program."""
    text = "write a page to look at trajectories, one HTML file"
    parser = commands.add_parser("view", help=text, description=text)
    parser.add_argument(
        "folder", type=user_path, help="a run directory with all its trajectories, or one folder of them"
    )
    parser.add_argument("--data", type=user_path, help="the prepared tasks (default: data/ in the run directory)")
    parser.add_argument("--out", type=user_path, help="the page (default: trajectories.html in the run directory)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the page and print its path. Raises ValueError, and CorruptRecord for a damaged file."""
    collection = find_collection(options.folder)
    data = options.data
    if data is None and collection.root is not None and RunLayout(collection.root).data.is_dir():
        data = RunLayout(collection.root).data
    tasks, faults = ({}, []) if data is None else load_tasks(data, collection.task_paths)
    for fault in faults:
        print(f"without gains and rewards: {fault}", file=sys.stderr)
    page = options.out or collection.page
    page.parent.mkdir(parents=True, exist_ok=True)
    count = write_collection_page(collection, tasks, collection.rules, page)
    known = "" if tasks else "; without gains and rewards, because no task is known: name their data with --data"
    print(f"{page}: {count:,} trajectories, {page.stat().st_size / 1e6:.1f} MB{known}")
