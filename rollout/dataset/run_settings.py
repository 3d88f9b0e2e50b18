"""Read what a run directory records about its own configuration, as far as this package depends on it."""

from pathlib import Path
from typing import Any

import yaml

from rollout.options import Observation
from rollout.storage.run_layout import RunLayout
from tasks.prompt import Prompt
from tasks.system_text import system_text


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
        ValueError: If the recorded configuration is damaged.
    """
    for root in (folder, *list(folder.resolve().parents)[:2]):
        settings = read_settings(root)
        prompt, observation = settings.get("prompt"), settings.get("observation")
        if isinstance(prompt, dict) and isinstance(observation, dict):
            return system_text(Prompt(**prompt).system, Observation(**observation).script_lines)
    return None
