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
from rollout.storage.checkpoint_files import read_json_object, refuse_dangling
from rollout.storage.weight_map import refuse_adapter
from tasks.quoting import shell_command

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
    refuse_dangling(path)
    if not path.is_file():
        refuse_adapter(Path(folder))
        raise FileNotFoundError(f"{path}: no such file; {_instead(Path(folder))}")
    raw = read_json_object(path)
    name = raw.pop("model_type", None)
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        known = ", ".join(map(repr, sorted(FAMILIES)))
        raise ValueError(f"{path}: model_type is {shown(name)}; expected one of {known}; use a checkpoint of these")
    return family.from_hf(Settings(raw, path))


def _instead(folder: Path) -> str:
    """Return what to do about a path that is no folder with a `config.json`."""
    if folder.suffix == ".gguf" and folder.is_file():
        command = shell_command("mlagent", "convert", folder, "--out", folder.with_suffix(""))
        return f"a GGUF file is converted first, by {command}"
    if not folder.is_dir():
        return (
            "expected a Hugging Face model directory; a model of the Hub is downloaded first, by "
            f"{shell_command('hf', 'download', 'OWNER/NAME', '--local-dir', 'FOLDER')}"
        )
    if snapshot := next(iter(sorted(folder.glob("snapshots/*/config.json"))), None):
        return f"a folder of the download cache; use {snapshot.parent}"
    return "expected a Hugging Face model directory with config.json"
