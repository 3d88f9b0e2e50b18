"""Check that a script cannot find the test rows, and so their labels, in anything that it can read in its sandbox."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rollout.task_tools.validation.case import UNCHECKED, Case, Failed
from rollout.types import Exit, Job
from tasks.task import Limits

SEARCH = Path(__file__).with_name("sandbox_search.py")
LIMITS = Limits(seconds=600.0, memory_mb=4096, workspace_mb=512)
MAX_SHARE = 0.5  # maximum share of the test rows that a source may hold
FOUND = re.compile(r"^found ([\d.]+) (.+)$", re.MULTILINE)
NUM_FILES = 200  # number of the task's own files whose copies are searched for


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        shares: The share of the test rows by the source that holds them.
        searched: A description of the amount searched.
    """

    shares: Mapping[str, float]
    searched: str


def nothing_leaks(case: Case) -> str:
    """Check that no package, loader or file that a script can read holds most of the test rows."""
    request = search_request(case)
    if not request["tables"] and not request["hashes"]:
        return f"no features to search for: {UNCHECKED}"
    found = search(case)
    for source, share in found.shares.items():
        if share > MAX_SHARE:
            raise Failed(
                f"a script finds {share:.0%} of the test rows in {source}, expected none; mask it in "
                "rollout/executor/interpreter.py, or remove the package from the task environment"
            )
    return found.searched


def search_request(case: Case, roots: tuple[str, ...] = ("/",)) -> dict[str, object]:
    """Return the input of `sandbox_search.py` as JSON values; it contains nothing private."""
    public = case.task.public
    try:
        tests = [name for name, table in case.tables.tests.items() if set(table) - {case.tables.id, *case.tables.truth}]
        id_ = case.tables.id
    except ValueError:  # if the task has its own grader, the answers need not be a table
        tests, id_ = [], case.task.submission.id
    others = (path for path in sorted(public.rglob("*")) if path.is_file() and path.suffix != ".csv")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in islice(others, NUM_FILES)]
    return {"tables": tests, "id": id_, "hashes": hashes, "own": [], "roots": roots}


def search(case: Case, planted: Mapping[str, bytes] | None = None) -> Found:
    """Return the result of a search of everything in a sandbox, including files `planted` in its workspace.

    Raises Failed if the search does not finish.
    """
    store = case.sandboxes.store
    request = search_request(case)
    tables = {str(name): (case.task.public / str(name)).read_bytes() for name in request["tables"]}  # type: ignore[union-attr]
    contents = {**tables, **(planted or {}), SEARCH.name: SEARCH.read_bytes()}
    contents["search.json"] = json.dumps(request).encode()
    files = {name: store.put(content) for name, content in contents.items()}
    job = Job(SEARCH.name, files, LIMITS, False, frozenset(tables), case.task.name)
    done = case.sandboxes.event_loop.run(case.sandboxes.executors["forked"].run(job))
    if done.exit is not Exit.OK:
        raise Failed(f"the search for test rows ended as {done.exit}: {' '.join(done.output.split())[-300:]}")
    return read_findings(done.output)


def read_findings(output: str) -> Found:
    """Return the result in a search's output."""
    # A source may be found by its texts and by its tables: after sorting, the larger share wins.
    found = sorted((float(share), source) for share, source in FOUND.findall(output))
    return Found(
        shares={source: share for share, source in found},
        searched=output.strip().splitlines()[-1].removeprefix("searched "),
    )
