"""Actions that look at or copy files and run nothing: list, copy, inspect, understand."""

import time
from collections.abc import Mapping

from rollout.environment.effect import Effect, Tools
from rollout.environment.feedback_text import excerpt
from rollout.environment.paths import HEAD_BYTES, Refused, head, listed, located, writable
from rollout.types import is_folder
from tasks.feedback import Outcome, shorten
from tasks.quoting import one_line, replace_unstorable
from tasks.task import Instance
from tasks.units import MIB


async def list_files(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """List the workspace or one of its folders."""
    del instance
    limit = tools.observation.listing_characters
    return Effect(Outcome.NON_EDIT, listed(tools.store, files, arguments["dir_path"], limit), files)


async def copy_file(tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
    """Copy a file of the workspace or of one of its folders to a file of the workspace."""
    store = tools.store
    source, digest = located(store, files, arguments["source"])
    destination = writable(instance, files, arguments["destination"])
    if source == destination:
        raise Refused(f"{source} cannot be copied onto itself")
    # Refused here because a workspace that exceeds the sandbox's disk would otherwise look like a sandbox failure.
    limit = instance.task.limits.workspace_mb * MIB // 2
    own = {name: blob for name, blob in files.items() if name not in instance.read_only and not is_folder(name)}
    if sum(map(store.size, {**own, destination: digest}.values())) > limit:
        raise Refused(f"{one_line(source)} is too large: its {store.size(digest):,} bytes do not fit the workspace")
    text = f"Copied {one_line(source)} to {destination}."
    return Effect(Outcome.NON_EDIT, text, {**files, destination: digest})


async def inspect_lines(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """Show a range of lines of a text file."""
    del instance
    name, digest = located(tools.store, files, arguments["script_name"])
    first, last = int(arguments["start_line_number"]), int(arguments["end_line_number"])
    text, size = await head(tools.store, name, digest)
    lines = text.splitlines()
    if not 1 <= first <= last:
        raise Refused(f"lines {first} to {last} make no range; lines count from 1")
    most = tools.observation.script_lines
    if last - first + 1 > most:
        raise Refused(f"{last - first + 1} lines are too many; {most} is the most at a time")
    if first > len(lines):
        ending = f"ends at line {len(lines)}" if size <= HEAD_BYTES else f"is shown up to line {len(lines)} only"
        raise Refused(f"{one_line(name)} {ending}")
    of = len(lines) if size <= HEAD_BYTES else f"a file of {size:,} bytes"
    text = excerpt(name, lines[first - 1 : last], first, of, tools.observation.script_characters)
    return Effect(Outcome.NON_EDIT, text, files)


async def understand_file(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """Ask the coder to describe a text file."""
    del instance
    name, digest = located(tools.store, files, arguments["file_name"])
    content, size = await head(tools.store, name, digest)
    started = time.monotonic()
    description = await tools.coder.describe(name, content, arguments["things_to_look_for"])
    part = "" if size <= HEAD_BYTES else f", the first {len(content):,} characters of {size:,} bytes"
    shown = shorten(replace_unstorable(description.strip()), tools.observation.output_characters)
    text = f"{one_line(name)}{part}: {shown}"
    return Effect(Outcome.NON_EDIT, text, files, seconds=time.monotonic() - started)
