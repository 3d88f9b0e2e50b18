"""Command-line entry point of the policy server: `python -m rollout.server --model DIR`."""

import sys

from rollout.inference.server import main

if __name__ == "__main__":
    sys.exit(main())
