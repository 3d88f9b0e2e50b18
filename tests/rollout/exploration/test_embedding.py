"""Sentence embeddings: the packaged encoder, and small models made here, against transformers by itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rollout.exploration.embedding import embed_texts
from rollout.exploration.idea_selection import pairwise_distances

TEXTS = ["use a forest", "use a deep forest of trees", "scale", "a"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "use", "a", "forest", "deep", "of", "trees", "scale"]
POOLINGS = {
    "plain transformers": None,
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
    "dense": "pooling_mode_mean_tokens",
}

# Saves a BERT of random weights and a dense layer into the folder "plain" of the one given, and prints as JSON the
# hidden states of each text, the layer's weights, and what `encode` makes of the texts by each of the other folders.
# All in one process, since torch must not be in that of the tests and takes long to start.
PROGRAM = """
import json, shutil, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertTokenizer
from rollout.exploration.embedding import encode
root, texts, words = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
plain = root / "plain"
plain.mkdir()
(plain / "vocab.txt").write_text("\\n".join(words))
torch.manual_seed(0)
config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=32, max_position_embeddings=32, initializer_range=0.5)
model, tokenizer = BertModel(config).eval(), BertTokenizer(str(plain / "vocab.txt"))
model.save_pretrained(plain)
tokenizer.save_pretrained(plain)
weight = torch.randn(3, 16)
(plain / "2_Dense").mkdir()
save_file({"linear.weight": weight, "linear.bias": torch.zeros(3)}, plain / "2_Dense/model.safetensors")
with torch.no_grad():
    hidden = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].tolist() for text in texts]
vectors = {}
for folder in root.iterdir():
    if folder != plain:
        shutil.copytree(plain, folder, dirs_exist_ok=True)
        vectors[folder.name] = encode(texts, str(folder)).tolist()
print(json.dumps([hidden, weight.tolist(), vectors]))
"""


def describe(folder: Path, modules: dict[str, dict]) -> None:
    """Writes the files by which a folder is a sentence-transformers model: its modules, and their settings."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (name, settings) in enumerate(modules.items(), 1):
        path, kind = f"{number}_{name}", f"sentence_transformers.models.{name}"
        listed.append({"idx": number, "name": str(number), "path": path, "type": kind})
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(listed))


@pytest.mark.slow
def test_an_encoder_pools_as_its_folder_says(tmp_path: Path) -> None:
    for name, mode in POOLINGS.items():
        (tmp_path / name).mkdir()
        if mode is not None:
            modules: dict[str, dict] = {"Pooling": {"word_embedding_dimension": 16, mode: True}}
            if mode != "pooling_mode_mean_tokens":
                modules["Pooling"]["pooling_mode_mean_tokens"] = False
            if name == "dense":
                identity = "torch.nn.modules.linear.Identity"
                modules["Dense"] = dict(in_features=16, out_features=3, bias=True, activation_function=identity)
            describe(tmp_path / name, modules)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(TEXTS), json.dumps(WORDS)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr
    hidden, weight, vectors = json.loads(said.stdout)
    states = [np.array(rows) for rows in hidden]
    mean = np.array([rows.mean(axis=0) for rows in states])
    expected = {
        "plain transformers": mean,
        "mean": mean,
        "cls": np.array([rows[0] for rows in states]),
        "lasttoken": np.array([rows[-1] for rows in states]),
        "dense": mean @ np.array(weight).T,
    }
    assert vectors.keys() == expected.keys()
    for name, rows in expected.items():
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # though none of the folders asks for it
        np.testing.assert_allclose(vectors[name], unit, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_packaged_encoder_puts_like_sentences_together() -> None:
    vectors = embed_texts(["Use a random forest.", "Train a forest of random trees.", "Remove stop words."])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    distances = pairwise_distances(vectors)
    assert distances[0, 1] < 1.0 < distances[0, 2]


@pytest.mark.slow
def test_what_is_no_encoder_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded as a sentence-transformers model") as caught:
        embed_texts(["x"], str(tmp_path))
    assert f"ideas.encoder={tmp_path}" in str(caught.value)
    assert "\n" not in str(caught.value)
