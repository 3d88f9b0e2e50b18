"""The command `evaluate` as a module: python -m mlagent_jax.evaluate."""

import sys

from mlagent_jax.evaluating.command import main

if __name__ == "__main__":
    sys.exit(main())
