"""The command `track`: send the figures of a run to a tracking service."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.tracking.follower import Follower
from mlagent_jax.tracking.services.service import SERVICES
from mlagent_jax.train import INTERRUPTED, USER_ERROR, signals_as_interrupts
from rollout.storage.folder_lock import is_locked
from rollout.storage.run_layout import RunLayout
from tasks.error_line import error_line
from tasks.quoting import user_path

POLL_SECONDS = 2.0
LAST_SECONDS = 600.0


def track(run: Path, to: str) -> int:
    """Send the figures of a run that a service lacks, and its artifacts; follow a run that goes on until it ends.

    Returns:
        The number of lines of `metrics.jsonl` that the service has.

    Raises:
        ValueError: If there are no figures, or the service cannot be used or does not take them.
    """
    layout = RunLayout(run)
    if not layout.metrics.exists():
        raise ConfigError(f"{layout.metrics} does not exist; give the directory of a run that has begun")
    with Follower(layout, to) as follower:
        while is_locked(layout.root):
            follower.catch_up()
            time.sleep(POLL_SECONDS)
        follower.finish(LAST_SECONDS, with_artifacts=is_finished(layout))
        return follower.num_sent


def is_finished(layout: RunLayout) -> bool:
    """Return whether every stage that began has ended."""
    begun, ended = ({path.stem for path in layout.stages.glob(f"*.{kind}")} for kind in ("started", "json"))
    return bool(ended) and begun <= ended


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.track") -> int:
    """Run the command line and return its exit code: 0, 2 for an invalid input, or 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Send a run's figures to a tracking service, and its configuration, reports, trajectories and "
        "export when it is over. A run that goes on is followed until it ends. Figures that the service has are not "
        "sent again.",
    )
    parser.add_argument("run", type=user_path, metavar="RUN_DIR", help="run directory")
    parser.add_argument("--to", required=True, choices=SERVICES, metavar="NAME", help=", ".join(SERVICES))
    parsed = parser.parse_args(arguments)
    try:
        with signals_as_interrupts():
            count = track(parsed.run, parsed.to)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    print(f"{parsed.run}: {parsed.to} has {count} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
