"""Cache keys: equal for jobs whose scripts must have the same result, even if their files have different names."""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rollout.types import Job
from tasks.task import SUBMISSION

# A script with one of these words may read its own name or other files' names, so names are part of its key.
NAME_READERS = re.compile(
    r"\b(?:__file__|argv|listdir|scandir|walk|i?glob|rglob|iterdir|subprocess|Popen|system|exec|eval|inspect|runpy)\b"
)
SCRIPT = "<file:script>"  # the placeholder of the script's own name in a cached output
FILE_NAME = re.compile(r"[\w-]+\.\w+")


@dataclass(frozen=True)
class JobKey:
    """The cache key of a job.

    Attributes:
        digest: A hash of everything that the result depends on, equal for jobs that differ only in file names.
        names: The placeholder of each file name in the cached output.
    """

    digest: str
    names: Mapping[str, str]


def key_of(job: Job, source: str, fingerprint: str, modules: frozenset[str] = frozenset()) -> JobKey:
    """Return the cache key of a job, equal only for jobs that must have the same result.

    A file that the script names by a whole string literal counts by its content alone, and the script's own name does
    not count. Other data files count by name and content, since the script may build the name from parts. Other scripts
    count only if the script can import them or they shadow a library. If a script can list its folder, all names
    count. A folder counts by its name, with the slash, and its digest.

    Args:
        job: The job.
        source: The text of its script.
        fingerprint: The fingerprint of the interpreter and sandbox.
        modules: The top-level names of the packages that the script can import.
    """
    files = {name: digest for name, digest in job.files.items() if name not in (SUBMISSION, job.script)}
    literals = _string_literals(source)
    names: dict[str, str] = {}
    if literals is not None and not NAME_READERS.search(source) and FILE_NAME.fullmatch(job.script):
        named = [name for name in files if name in literals and FILE_NAME.fullmatch(name)]
        # Two files with the same content could not be distinguished in the cached output.
        if len({files[name] for name in named}) == len(named) and job.script not in literals:
            names = {name: f"<file:{files[name]}>" for name in named} | {job.script: SCRIPT}
            files = {name: digest for name, digest in files.items() if name not in names}
            words = set(re.findall(r"\w+", source)) | modules | sys.stdlib_module_names
            files = {name: digest for name, digest in files.items() if _is_seen(name, words)}
    for name, placeholder in names.items():
        if name != job.script:
            source = re.sub(rf"(['\"]){re.escape(name)}\1", lambda match, to=placeholder: to.join(match[1] * 2), source)
    script = SCRIPT if job.script in names else job.script
    read_only = sorted(job.files[name] for name in job.read_only & job.files.keys())
    parts = [script, source, sorted(files.items()), read_only, asdict(job.limits), fingerprint]
    return JobKey(hashlib.sha256(json.dumps(parts).encode()).hexdigest(), names)


def _string_literals(source: str) -> set[str] | None:
    """Return the string constants of a script, None if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # deep nesting raises one of the last two
        return None
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _is_seen(name: str, words: set[str] | frozenset[str]) -> bool:
    """Return whether a file that the script does not name can change the result of the script."""
    return not name.endswith(".py") or name.removesuffix(".py") in words


def replace_names(text: str, names: Mapping[str, str]) -> str:
    """Return `text` with every whole word that is a key of `names` replaced by its value."""
    if not names:
        return text
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])(?:{pattern})(?![\w-])", lambda match: names[match[0]], text)
