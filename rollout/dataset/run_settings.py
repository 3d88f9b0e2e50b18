"""Read what a run directory records about its own configuration, as far as this package depends on it."""

from pathlib import Path
from typing import Any, get_args

import yaml

from rollout.options import Observation
from rollout.storage.run_layout import RunLayout
from tasks.prompt import Prompt
from tasks.quoting import quoted
from tasks.system_text import Kind, system_text


def read_settings(root: Path) -> dict[str, Any]:
    """Return the configuration of a run by section, empty if none is recorded. Raises ValueError if it is damaged."""
    path = RunLayout(root).config
    if not path.is_file():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}); fix or remove it") from error
    return settings if isinstance(settings, dict) else {}


def recorded_system_text(folder: Path) -> str | None:
    """Return the system message of the run whose directory is `folder` or contains it, None if none is recorded.

    Raises:
        ValueError: If the recorded configuration is damaged, or of a version that has other values.
    """
    for root in (folder, *list(folder.resolve().parents)[:2]):
        settings = read_settings(root)
        prompt, observation = settings.get("prompt"), settings.get("observation")
        if isinstance(prompt, dict) and isinstance(observation, dict):
            kind, lines = prompt.get("system", Prompt.system), observation.get("script_lines", Observation.script_lines)
            if kind not in get_args(Kind) or not isinstance(lines, int):
                raise ValueError(
                    f"{RunLayout(root).config}: prompt.system={quoted(kind)} and observation.script_lines="
                    f"{quoted(lines)}; expected one of {', '.join(get_args(Kind))} and a number; give --system"
                )
            return system_text(kind, lines)
    return None
