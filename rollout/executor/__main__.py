"""`python -m rollout.executor doctor` and `python -m rollout.executor run`: the sandbox, tried by hand."""

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rollout.executor.backends.bubblewrap import bubblewrap_executor
from rollout.executor.backends.bubblewrap.command import find_bwrap, way_of_this_process
from rollout.executor.backends.landlock import landlock_abi, landlock_executor
from rollout.executor.interpreter import TASK_PYTHON
from rollout.executor.sandboxes import SandboxExecutor
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Exit, Job
from tasks.task import Limits

# What decides whether an ordinary user may make namespaces, by kernel and distribution.
SETTINGS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
LIMIT_OF = {Exit.TIMEOUT: "seconds", Exit.OUT_OF_MEMORY: "memory_mb", Exit.OUT_OF_DISK: "workspace_mb or file_mb"}


def main(argv: Sequence[str] | None = None, prog: str = "python -m rollout.executor") -> int:
    """Run the command line; returns 0, 1 where no sandbox can be made here, 2 with one line on standard error."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Check the sandbox of this machine, or run one script in it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="say what this machine can do, and what to install")
    run = commands.add_parser("run", help="run one script in a sandbox; print what came of it as JSON")
    run.add_argument("script", type=Path)
    run.add_argument("--inputs", type=Path, metavar="DIR", help="its files and folders can be read beside the script")
    run.add_argument("--zygote", action="store_true", help="as a fork of a preloaded interpreter, as training does")
    run.add_argument(
        "--isolation",
        choices=("bubblewrap", "landlock"),
        default="bubblewrap",
        help="landlock: weaker, for machines where bubblewrap cannot make a sandbox (default: %(default)s)",
    )
    run.add_argument("--submission", type=Path, metavar="FILE", help="where to put the submission.csv that it leaves")
    for limit in dataclasses.fields(Limits):
        run.add_argument(f"--limit.{limit.name}", type=type(limit.default), default=limit.default, metavar="N")
    for command in (doctor, run):
        command.add_argument(
            "--python",
            type=Path,
            default=TASK_PYTHON,
            help="interpreter of the task environment (default: %(default)s)",
        )
    options = parser.parse_args(argv)
    try:
        if options.command == "doctor":
            findings = examine(options.python)
            for name, found in findings.items():
                print(f"{name:20} {found}")
            return 0 if findings["sandbox"].startswith("works") else 1
        limits = Limits(**{limit.name: getattr(options, f"limit.{limit.name}") for limit in dataclasses.fields(Limits)})
        if options.isolation == "landlock" and options.zygote:
            raise ValueError("--zygote goes with --isolation bubblewrap alone; leave it out")

        def make_executor(store: BlobStore) -> SandboxExecutor:
            if options.isolation == "landlock":
                return landlock_executor(store, options.python, slots=1)
            return bubblewrap_executor(store, options.python, slots=1, warm=options.zygote)

        execution = run_script(options.script, options.inputs, limits, make_executor)
        if options.submission and execution.submission is not None:
            options.submission.write_bytes(execution.submission)
        print(json.dumps(describe(execution), indent=1))
    except (ValueError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0


def examine(python: Path) -> Mapping[str, str]:
    """Return what was found out about this machine, by name; `sandbox` begins with `works` where scripts can run."""
    bwrap = find_bwrap()
    found = {
        "user": f"uid {os.geteuid()}, so the way is {way_of_this_process()}",
        "kernel": os.uname().release,
        "bwrap": f"{bwrap}, {_version(bwrap)}" if bwrap else "not found",
        "task environment": str(python) if python.is_file() else f"no interpreter at {python}; make it with `make env`",
    }
    for setting in SETTINGS:
        path = Path("/proc/sys", setting)
        if path.exists():
            found[path.name] = path.read_text().strip()
    found["sandbox"] = _verdict(lambda store: bubblewrap_executor(store, python, slots=1))
    landlock = _verdict(lambda store: landlock_executor(store, python, slots=1))
    return found | {"landlock": f"{landlock}; ABI {landlock_abi()}, a weaker sandbox that is used only when asked for"}


def _verdict(make_executor: Callable[[BlobStore], SandboxExecutor]) -> str:
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            executor = make_executor(BlobStore(Path(folder)))
    except ValueError as error:
        return f"does not work: {error}"
    return f"works: {executor.tier}, self-test passed in {time.monotonic() - began:.1f} s"


def run_script(
    script: Path, inputs: Path | None, limits: Limits, make_executor: Callable[[BlobStore], SandboxExecutor]
) -> Execution:
    """Return what a script did in a sandbox of its own, beside the files and folders of `inputs`, which it may read.

    Raises:
        ValueError: if no sandbox can be made here, or if a folder has links in it.
        OSError: if a file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # without namespaces, scripts of another uid read the data by their paths
        store = BlobStore(Path(folder))
        data = {}
        for path in sorted(inputs.iterdir()) if inputs else ():
            if path.is_dir():
                data[f"{path.name}/"] = store.put_folder(path)
            elif path.is_file() and path.name != script.name:
                data[path.name] = store.put_file(path)
        files = {**data, script.name: store.put(script.read_bytes())}
        with closing(make_executor(store)) as executor:
            return asyncio.run(executor.run(Job(script.name, files, limits, read_only=frozenset(data))))


def describe(execution: Execution) -> Mapping[str, Any]:
    """Return a run as JSON values; `limit` is the one that ended it, null where none did."""
    return {
        "exit": execution.exit,
        "limit": LIMIT_OF.get(execution.exit),
        "tier": execution.tier,
        "seconds": round(execution.seconds, 3),
        "submission_bytes": None if execution.submission is None else len(execution.submission),
        "output": execution.output,
    }


def _version(bwrap: Path) -> str:
    return subprocess.run([str(bwrap), "--version"], capture_output=True, text=True).stdout.strip() or "does not start"


if __name__ == "__main__":
    sys.exit(main())
