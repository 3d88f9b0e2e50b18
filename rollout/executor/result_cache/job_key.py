"""When two jobs are the same: what the result of a script can depend on, and what is mere naming."""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rollout.executor.workspace_io import SUBMISSION
from rollout.types import Job

# With one of these a script may read its own name or the names around it: then names are part of the job.
NAME_READERS = re.compile(
    r"\b(?:__file__|argv|listdir|scandir|walk|i?glob|rglob|iterdir|subprocess|Popen|system|exec|eval|inspect|runpy)\b"
)
SCRIPT = "<file:script>"  # stands for the script's own name in a record
FILE_NAME = re.compile(r"[\w-]+\.\w+")


@dataclass(frozen=True)
class JobKey:
    """What a job's result depends on, and how its names are written in the record.

    Attributes:
        digest: equal for jobs that differ only in what their files are called.
        names: file name to the placeholder that stands for it in the recorded output.
    """

    digest: str
    names: Mapping[str, str]


def key_of(job: Job, source: str, fingerprint: str, modules: frozenset[str] = frozenset()) -> JobKey:
    """Return the key of a job: the same for jobs that can only have the same result.

    A file that the script names by a whole string literal enters by its content alone, the script's own name not at
    all. Other data files enter by name and content, since the name may be put together; other scripts only where the
    script imports them or they stand in the way of a library (`modules` are the top-level names of the libraries).
    A script that can list its folder depends on all names. A folder enters by its name, slash included, and its digest.
    """
    files = {name: digest for name, digest in job.files.items() if name not in (SUBMISSION, job.script)}
    literals = _string_literals(source)
    names: dict[str, str] = {}
    if literals is not None and not NAME_READERS.search(source) and FILE_NAME.fullmatch(job.script):
        named = [name for name in files if name in literals and FILE_NAME.fullmatch(name)]
        # Two files of the same content could not be told apart in the record.
        if len({files[name] for name in named}) == len(named) and job.script not in literals:
            names = {name: f"<file:{files[name]}>" for name in named} | {job.script: SCRIPT}
            files = {name: digest for name, digest in files.items() if name not in names}
            words = set(re.findall(r"\w+", source)) | modules | sys.stdlib_module_names
            files = {name: digest for name, digest in files.items() if _is_seen(name, words)}
    for name, placeholder in names.items():
        if name != job.script:
            source = re.sub(rf"(['\"]){re.escape(name)}\1", lambda found, to=placeholder: to.join(found[1] * 2), source)
    script = SCRIPT if job.script in names else job.script
    mounted = sorted(job.files[name] for name in job.read_only & job.files.keys())
    parts = [script, source, sorted(files.items()), mounted, asdict(job.limits), fingerprint]
    return JobKey(hashlib.sha256(json.dumps(parts).encode()).hexdigest(), names)


def _string_literals(source: str) -> set[str] | None:
    """Return the string constants of a script, None if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what is nested too deep is one of the last two
        return None
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _is_seen(name: str, words: set[str] | frozenset[str]) -> bool:
    """Return whether a file that the script does not name can still change what it does."""
    return not name.endswith(".py") or name.removesuffix(".py") in words


def replace_names(text: str, names: Mapping[str, str]) -> str:
    """Return a text with every key of `names` that stands in it as a whole word replaced by its value."""
    if not names:
        return text
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])(?:{pattern})(?![\w-])", lambda found: names[found[0]], text)
