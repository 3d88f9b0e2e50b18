"""The command `solve` as a module: python -m mlagent_jax.solve."""

import sys

from mlagent_jax.solving.command import main

if __name__ == "__main__":
    sys.exit(main())
