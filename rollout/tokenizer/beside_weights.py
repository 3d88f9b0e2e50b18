"""Copy the files beside the weights of a checkpoint, so that a policy trained from it keeps all of them.

There is no list of the tokenizer's files: their names differ between versions of transformers, and a file that such a
list forgets would be lost silently. Everything is copied except weights, what a trained policy has of its own, and what
another training has left.
"""

import shutil
from pathlib import Path

from rollout.storage.checkpoint_files import is_whole, read_json_object, refuse_dangling, refuse_pointer
from rollout.tokenizer.chat import CONFIG_FILE, TOKENIZER_FILE
from tasks.quoting import quoted

GENERATION_CONFIG = "generation_config.json"
TEMPLATES = "additional_chat_templates"  # the folder of the templates that are not the default one
SUFFIXES = {".jinja", ".json", ".model", ".py", ".tiktoken", ".txt", ".vocab"}  # .py: a tokenizer with code of its own
LEGAL = ("copying", "copyright", "licence", "license", "notice", "use_policy", "terms", "eula")  # in a file's name
LICENSES = "LICENSES"  # the folder of several licenses, by the convention of REUSE
WEIGHT_SUFFIXES = {".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors"}
# Files that describe the weights, or the training that made them. A saved policy has its own.
NOT_COPIED = {
    "config.json",
    "canary.json",
    "digests.json",
    "training_data.json",
    "trainer_state.json",
    "train_results.json",
    "eval_results.json",
    "all_results.json",
    "adapter_config.json",
    "hf_quant_config.json",
    "quant_strategy.json",
    "quantization_config.json",
    "quantize_config.json",
}


def copy_beside_weights(checkpoint: Path, folder: Path) -> None:
    """Copy the tokenizer's files, chat templates, generation defaults and license of a checkpoint to `folder`.

    Args:
        checkpoint: The Hugging Face directory.
        folder: The folder to write, made if missing.

    Raises:
        ValueError: If the tokenizer or its configuration is missing, or one of the files is damaged.
    """
    for path in files_beside_weights(checkpoint):
        target = folder / path.relative_to(checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def files_beside_weights(checkpoint: Path) -> list[Path]:
    """Return the files that `copy_beside_weights` copies, or raise what it raises."""
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        refuse_dangling(checkpoint / name)
        if not (checkpoint / name).is_file():
            raise ValueError(f"{checkpoint / name}: no such file; model.path needs the tokenizer beside the weights")
    files = [path for path in sorted(checkpoint.iterdir()) if not path.is_dir() and is_beside_weights(path.name)]
    files += sorted((checkpoint / TEMPLATES).glob("*.jinja"))
    files += sorted(path for path in (checkpoint / LICENSES).glob("*") if not path.is_dir())
    for path in files:
        refuse_dangling(path)
        refuse_pointer(path)
    read_json_object(checkpoint / CONFIG_FILE)
    if (generation := checkpoint / GENERATION_CONFIG).is_file():
        read_token_ids(generation)
    return files


def is_beside_weights(name: str) -> bool:
    """Return whether a file of a checkpoint is kept beside other weights."""
    if name in NOT_COPIED or name.startswith(".") or name.endswith(".index.json"):
        return False
    suffix = Path(name).suffix.lower()
    return suffix in SUFFIXES or (suffix not in WEIGHT_SUFFIXES and any(word in name.lower() for word in LEGAL))


def read_token_ids(path: Path) -> dict[str, int | list[int]]:
    """Return the token ids that a `generation_config.json` names, such as those that end a response, by key.

    Raises:
        ValueError: If it is not a JSON object, or one of them is not a token id.
    """
    found = {}
    for key, value in read_json_object(path).items():
        if key.endswith("_token_id") and value is not None:
            ids = value if isinstance(value, list) and value else [value]
            if not all(is_whole(each) and each >= 0 for each in ids):
                raise ValueError(f"{path}: {key} is {quoted(value)}; expected a token id, or several as an array")
            found[key] = value
    return found
