"""The command `mlagent runs`: list the runs below a folder, or show them in a browser."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlagent_jax.browsing.listing import Listed, list_runs
from mlagent_jax.browsing.server import RunsServer
from mlagent_jax.reporting.page import gain_text
from mlagent_jax.tracking.progress import duration_text
from mlagent_jax.train import USER_ERROR
from tasks.error_line import error_line
from tasks.quoting import user_path

PORT = 8640


def main(arguments: Sequence[str] | None = None, prog: str = "mlagent runs") -> int:
    """Run the command line and return its exit code: 0, or 2 for an invalid input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s [FOLDER] | %(prog)s serve [FOLDER] [--host HOST] [--port PORT]",
        description="List the runs below a folder, or show their figures, reports and trajectories in a browser, also "
        "while they train. The server only reads. By default it answers this machine alone.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="serve FOLDER", help="`serve` to show them; the folder (default: runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    serves = parsed.words[:1] == ["serve"]
    words = parsed.words[serves:]
    if len(words) > 1:
        parser.error(f"expected one folder, not {' '.join(words)}")
    folder = user_path(words[0]) if words else Path("runs")
    try:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; give the one that holds your runs")
        if serves:
            return serve(folder, parsed.host, parsed.port)
        runs = list_runs(folder)
        if not runs:
            raise ValueError(f"there is no run in {folder}; `mlagent train` makes one")
        Console().print(table(runs))
        return 0
    except (ValueError, OSError, OverflowError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR


def serve(folder: Path, host: str, port: int) -> int:
    """Serve until interrupted."""
    with RunsServer(folder, host, port) as server:
        shown = "127.0.0.1" if host in ("", "0.0.0.0") else host
        print(f"http://{shown}:{server.server_address[1]} shows the runs in {folder}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def table(runs: Sequence[Listed]) -> Table:
    """Return the runs as a table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", "stage"):
        made.add_column(name, overflow="fold")
    for name in ("reward", "held-in gain", "held-out gain", "changed"):
        made.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        gains = [
            gain_text(run.gains[f"{policy}/{split}"]) if policy else ""
            for split in ("held_in", "held_out")
            for policy in [next((name for name in ("ppo", "sft") if f"{name}/{split}" in run.gains), "")]
        ]
        stage = f"{run.stage} {run.progress}".strip()
        reward = "" if run.reward is None else gain_text(run.reward)
        made.add_row(
            run.name, run.state, stage, reward, *gains, f"{duration_text(max(0.0, time.time() - run.changed))} ago"
        )
    return made
