"""Find the files that hold a checkpoint's weights, or say what the folder holds instead."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.storage.checkpoint_files import read_json_object, refuse_dangling
from tasks.quoting import quoted, shell_command

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
TORCH_FILES = ("*.bin", "*.bin.index.json", "*.pt", "*.pth")


@dataclass(frozen=True)
class Placement:
    """The weight files of a checkpoint.

    Attributes:
        files: Their names, sorted.
        weight_map: The file of each tensor as the index states it; empty if there is no index.
    """

    files: list[str]
    weight_map: Mapping[str, str]


def find_weights(folder: Path) -> Placement:
    """Return the weight files of the checkpoint in `folder`.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the index is damaged, or the folder holds weights in another form.
    """
    refuse_adapter(folder)
    index = folder / INDEX
    if index.is_file():
        weight_map = _read_index(index)
        if (folder / WEIGHTS).exists() and WEIGHTS not in weight_map.values():
            raise ValueError(
                f"{folder}: {WEIGHTS} lies beside {INDEX}, which names other files; remove the one that does not "
                "belong to the checkpoint"
            )
        return Placement(sorted(set(weight_map.values())), weight_map)
    for path in (index, folder / WEIGHTS):
        refuse_dangling(path)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder / WEIGHTS}: no such file; {_instead(folder)}")
    return Placement([WEIGHTS], {})


def refuse_adapter(folder: Path) -> None:
    """Raise ValueError if a folder holds an adapter, which is no model by itself."""
    if (folder / ADAPTER).exists():
        raise ValueError(
            f"{folder / ADAPTER}: the folder holds a LoRA adapter; merge it into its base model (`merge_and_unload` of "
            "peft), save the whole model, and use that folder"
        )


def _read_index(path: Path) -> dict[str, str]:
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path}: no weight_map, an object of tensor names and files; fetch it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(
                f"{path}: names {quoted(file)} as the file of {quoted(name)}; expected a safetensors file in the same "
                "folder; fetch it again"
            )
    return weight_map


def _instead(folder: Path) -> str:
    """Return what to do about a folder without weights."""
    if any(found for pattern in TORCH_FILES for found in folder.glob(pattern)):
        code = "from transformers import AutoModelForCausalLM as M; M.from_pretrained('.').save_pretrained('safe')"
        return f"the weights are in PyTorch's format; convert them there by {shell_command('python', '-c', code)}"
    if ggufs := sorted(folder.glob("*.gguf")):
        command = shell_command("mlagent", "convert", ggufs[0], "--out", folder.with_name(f"{folder.name}-converted"))
        return f"the weights are in a GGUF file; convert it by {command}"
    if shards := sorted(path for path in folder.glob("*.safetensors") if path.is_file()):
        return f"there is {quoted(shards[0].name)}, but no {INDEX}; fetch the index too"
    return "expected the model's weights in safetensors format; fetch them"
