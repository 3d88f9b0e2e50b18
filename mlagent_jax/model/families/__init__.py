"""The model families, one file each: a file is named after the `model_type` of its checkpoints and defines `FAMILY`.

To add a family, add a file. It states how `config.json` is read and written, which tensors of the checkpoint are which
parameters, and how parameters that other families lack are sharded. Nothing here imports JAX.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.config_settings import Settings, shown
from rollout.storage.checkpoint_files import read_json_object

FAMILIES: Mapping[str, type[TransformerConfig]] = {
    name: import_module(f"{__name__}.{name}").FAMILY for _, name, _ in iter_modules(__path__)
}


def read_config(folder: Path) -> TransformerConfig:
    """Return the configuration of the checkpoint in `folder`.

    Raises:
        FileNotFoundError: If there is no `config.json`.
        ValueError: If it is not readable, its family is unknown, or it uses a feature that the network does not have.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a Hugging Face model directory with config.json")
    raw = read_json_object(path)
    name = raw.pop("model_type", None)
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        known = ", ".join(map(repr, sorted(FAMILIES)))
        raise ValueError(f"{path}: model_type is {shown(name)}; expected one of {known}; use a checkpoint of these")
    return family.from_hf(Settings(raw, path))
