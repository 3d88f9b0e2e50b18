"""Data sets of trajectories.

python -m rollout.dataset view RUN                        write a page to look at trajectories, one HTML file
python -m rollout.dataset diversity RUN [OTHER ...]       measure how diverse the edits of collections are
python -m rollout.dataset select RUN                      show which trajectories filters keep
python -m rollout.dataset export RUN --out data.jsonl     write trajectories as ShareGPT conversations
python -m rollout.dataset import data.jsonl --out FOLDER  turn such conversations into trajectories
"""

import argparse
import sys
from collections.abc import Sequence

from rollout.dataset import commands, diversity_command
from rollout.dataset.viewer import view_command
from rollout.errors import InfrastructureError
from rollout.runtime.parent_death import die_with_parent
from tasks.error_line import error_line

COMMANDS = (view_command, diversity_command, commands)  # modules with an `add_parser`


def main(argv: Sequence[str] | None = None, prog: str = "python -m rollout.dataset") -> int:
    """Return the exit status: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").replace("python -m rollout.dataset", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(subparsers)
    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (ValueError, InfrastructureError, OSError) as error:
        print(f"{prog}: {error_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
