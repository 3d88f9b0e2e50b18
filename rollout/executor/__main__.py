"""Try the sandbox by hand: `python -m rollout.executor doctor` and `python -m rollout.executor run`."""

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rollout.errors import ExecutorError
from rollout.executor import open_backend
from rollout.executor.backends.bubblewrap.command import find_bwrap, tier_of_this_process
from rollout.executor.backends.landlock import landlock_abi
from rollout.executor.backends.registry import backend_class
from rollout.executor.interpreter import TASK_PYTHON
from rollout.executor.known_failures import cause_of
from rollout.executor.script_env import OPEN_FILES
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Exit, Job
from tasks.error_line import error_line
from tasks.quoting import user_path
from tasks.task import Limits

# The settings that decide whether an ordinary user may make namespaces, by kernel and distribution.
SETTINGS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
LIMIT_OF = {
    Exit.TIMEOUT: "seconds",
    Exit.OUT_OF_MEMORY: "memory_mb",
    Exit.OUT_OF_DISK: "workspace_mb or file_mb",
    Exit.OUT_OF_PROCESSES: "num_processes",
    Exit.OUT_OF_FILES: f"{OPEN_FILES} open files",
}


def main(argv: Sequence[str] | None = None, prog: str = "python -m rollout.executor") -> int:
    """Run the command line and return 0, 1 if no sandbox can be made here, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Check the sandbox of this machine, or run one script in it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="report what this machine can do and what to install")
    run = commands.add_parser("run", help="run one script in a sandbox and print the outcome as JSON")
    run.add_argument("script", type=user_path)
    run.add_argument("--inputs", type=user_path, metavar="DIR", help="files and folders that the script can read")
    run.add_argument("--forked", action="store_true", help="fork a preloaded interpreter, as training does")
    run.add_argument(
        "--isolation",
        metavar="BACKEND",
        default="bubblewrap",
        help="bubblewrap, landlock (weaker, for machines without namespaces) or module:Class (default: %(default)s)",
    )
    run.add_argument("--submission", type=user_path, metavar="FILE", help="the file to write its submission.csv to")
    for limit in dataclasses.fields(Limits):
        run.add_argument(f"--limit.{limit.name}", type=type(limit.default), default=limit.default, metavar="N")
    for command in (doctor, run):
        command.add_argument(
            "--python",
            type=user_path,
            default=TASK_PYTHON,
            help="interpreter of the task environment (default: %(default)s)",
        )
    options = parser.parse_args(argv)
    try:
        if options.command == "doctor":
            findings = examine(options.python)
            for name, finding in findings.items():
                print(f"{name:20} {finding}")
            return 0 if findings["sandbox"].startswith("works") else 1
        limits = Limits(**{limit.name: getattr(options, f"limit.{limit.name}") for limit in dataclasses.fields(Limits)})
        if options.forked and not backend_class(options.isolation).capabilities.forks:
            raise ValueError(f"--forked is not supported by --isolation {options.isolation}; leave it out")
        executor = ExecutorOptions(slots=1, python=str(options.python), isolation=options.isolation)
        execution = run_script(options.script, options.inputs, limits, executor, fresh=not options.forked)
        if options.submission and execution.submission is not None:
            options.submission.write_bytes(execution.submission)
        print(json.dumps(describe(execution, limits), indent=1))
    except (ValueError, OSError, ExecutorError) as error:
        print(f"{prog}: {error_line(error)}", file=sys.stderr)
        return 2
    return 0


def examine(python: Path) -> Mapping[str, str]:
    """Return findings about this machine by name; `sandbox` begins with `works` if scripts can run."""
    bwrap = find_bwrap()
    findings = {
        "user": f"uid {os.geteuid()}, so the tier is {tier_of_this_process()}",
        "kernel": os.uname().release,
        "bwrap": f"{bwrap}, {_version(bwrap)}" if bwrap else "not found",
        "task environment": str(python) if python.is_file() else f"no interpreter at {python}; make it with `make env`",
    }
    for setting in SETTINGS:
        path = Path("/proc/sys", setting)
        if path.exists():
            findings[path.name] = path.read_text().strip()
    findings["sandbox"] = _verdict("bubblewrap", python)
    landlock = f"{_verdict('landlock', python)}; ABI {landlock_abi()}, a weaker sandbox that is used only on request"
    return findings | {"landlock": landlock}


def _verdict(isolation: str, python: Path) -> str:
    began = time.monotonic()
    options = ExecutorOptions(slots=1, python=str(python), isolation=isolation)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(open_backend(options, BlobStore(Path(folder)))) as backend,
        ):
            return f"works: {backend.tier}, self-test passed in {time.monotonic() - began:.1f} s"
    except ValueError as error:
        return f"does not work: {error}"


def run_script(script: Path, inputs: Path | None, limits: Limits, options: ExecutorOptions, fresh: bool) -> Execution:
    """Run a script in its own sandbox and return the result.

    Args:
        script: The script.
        inputs: A folder whose files and folders the script can read next to it.
        limits: The limits of the run.
        options: The options of the executor.
        fresh: Whether the script starts an interpreter of its own.

    Raises:
        ValueError: If no sandbox can be made here, a folder contains links, or an input is no file or folder.
        OSError: If a file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # without namespaces, scripts of another uid read the data by their paths
        store = BlobStore(Path(folder))
        data = {}
        for path in sorted(inputs.iterdir()) if inputs else ():
            if path.is_dir():
                data[f"{path.name}/"] = store.put_folder(path)
            elif not path.is_file():
                raise ValueError(f"{path} is no file or folder, but a broken link or a pipe; remove it")
            elif path.name != script.name:
                data[path.name] = store.put_file(path)
        files = {**data, script.name: store.put(script.read_bytes())}
        with closing(open_backend(options, store, fresh)) as backend:
            job = Job(script.name, files, limits, read_only=frozenset(data))
            machine, *_ = backend.machines()
            return asyncio.run(backend.run(job, machine))


def describe(execution: Execution, limits: Limits) -> Mapping[str, Any]:
    """Return a run as JSON values; `limit` names the limit that ended it and `cause` says what failed, or are null."""
    cause = "" if execution.exit is Exit.OK else cause_of(execution, limits)
    return {
        "exit": execution.exit,
        "limit": LIMIT_OF.get(execution.exit),
        "cause": cause or None,
        "tier": execution.tier,
        "seconds": round(execution.seconds, 3),
        "submission_bytes": None if execution.submission is None else len(execution.submission),
        "output": execution.output,
    }


def _version(bwrap: Path) -> str:
    done = subprocess.run([str(bwrap), "--version"], capture_output=True, encoding="utf-8", errors="replace")
    return done.stdout.strip() or "does not start"


if __name__ == "__main__":
    sys.exit(main())
