"""The command `diversity` of `python -m rollout.dataset`."""

import argparse
import json

from rollout.dataset.diversity import diversity, read_edits, table
from tasks.quoting import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the subparsers of the program."""
    text = "measure how diverse the edits of collections are"
    command = commands.add_parser("diversity", help=text, description=text)
    command.add_argument(
        "folders", nargs="+", type=user_path, metavar="FOLDER", help="trajectories; compared to the first"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.set_defaults(run=main)


def main(options: argparse.Namespace) -> None:
    """Print the diversity of the folders of `options`.

    Raises:
        FileNotFoundError, CorruptRecord, ValueError: If a folder cannot be read, or is given twice.
    """
    if len(set(options.folders)) < len(options.folders):
        raise ValueError("a folder is given twice; give each once, the one to compare to first")
    figures = diversity({str(folder): read_edits(folder) for folder in options.folders}, options.seed)
    print(json.dumps(figures, indent=1, ensure_ascii=False) if options.json else table(figures))
