"""What can be done with collections of trajectories: `python -m rollout.dataset COMMAND --help`."""

import argparse
import sys
from collections.abc import Sequence

from rollout.dataset import diversity
from rollout.parent import die_with_parent


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m rollout.dataset", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    diversity.add_parser(commands)
    options = parser.parse_args(argv)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"python -m rollout.dataset: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
