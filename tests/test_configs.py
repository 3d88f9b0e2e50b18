"""Every configuration file of the repository parses, is complete, and says how it is run."""

from pathlib import Path

import pytest
import yaml

from mlagent_jax.config import Config
from mlagent_jax.config_file import keys, load_config, to_dict

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_parses_and_leaves_no_key_out(path: Path) -> None:
    assert yaml.safe_load(path.read_text()) == to_dict(load_config(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_first_line_is_the_command_that_runs_it(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"# python -m mlagent_jax.train --config configs/{path.name}"


def test_quickstart_file_says_what_the_code_defaults_to() -> None:
    assert load_config(CONFIGS[0].parent / "quickstart.yaml") == Config()


def test_every_key_has_a_meaning() -> None:
    for key in keys():
        assert key.meaning.endswith("."), key
