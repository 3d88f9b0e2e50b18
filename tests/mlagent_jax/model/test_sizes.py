"""Sizes of the model come from the checkpoint, and stated ones must be its own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError, Mesh, Model
from mlagent_jax.model.sizes import checkpoint_config, model_config, planned_config

NO_PATH = load_config().model
SHAPE = model_config(NO_PATH, 512, 2, 1024)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """The section for a checkpoint of the quickstart's sizes, of which only config.json is there."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE.to_hf("float32")))
    return Model(path=str(tmp_path))


def test_sizes_are_the_checkpoints(model: Model) -> None:
    found = checkpoint_config(model, None, Mesh())
    assert (found.num_layers, found.hidden_size, found.vocab_size, found.head_dim) == (2, 256, 512, 64)
    assert checkpoint_config(replace(NO_PATH, path=model.path), 512, Mesh()) == found


def test_stated_sizes_that_contradict_the_checkpoint_are_an_error_with_its_sizes(model: Model) -> None:
    with pytest.raises(ConfigError) as error:
        checkpoint_config(replace(model, num_layers=3, hidden_size=256, tie_word_embeddings=False), 2304, Mesh())
    assert str(error.value) == (
        "model.num_layers=3, model.tie_word_embeddings=False, tokenizer.vocab_size=2304 do not fit the checkpoint at "
        f"model.path={model.path}, which has 2, True, 512; leave them out, or set them to null"
    )


def test_sizes_of_the_checkpoint_must_divide_as_the_mesh_needs(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"model\.num_kv_heads=2 is not divisible by mesh\.tensor=4; lower"):
        checkpoint_config(model, None, Mesh(tensor=4))


def test_unknown_family_is_a_configuration_error(model: Model) -> None:
    assert model.path is not None
    path = Path(model.path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "mamba"}))
    with pytest.raises(ConfigError, match="model_type is 'mamba'"):
        checkpoint_config(model, None, Mesh())


def test_planned_sizes_need_the_checkpoints_config_or_stated_sizes(model: Model, tmp_path: Path) -> None:
    assert planned_config(model, None, Mesh(), 1024) == SHAPE
    elsewhere = replace(model, path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"null, and there is no \S+/nowhere/config\.json"):
        planned_config(elsewhere, None, Mesh(), 1024)
    found = planned_config(replace(NO_PATH, path=elsewhere.path), 2304, Mesh(), 1024)
    assert (found.num_layers, found.vocab_size, found.max_position_embeddings) == (2, 2304, 1024)


def test_heads_that_vllm_does_not_serve_are_found_before_anything_runs(model: Model) -> None:
    assert model.path is not None
    path = Path(model.path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 192, "head_dim": 48}))
    with pytest.raises(ConfigError, match="heads of size 48, which vLLM does not serve"):
        checkpoint_config(model, None, Mesh())
