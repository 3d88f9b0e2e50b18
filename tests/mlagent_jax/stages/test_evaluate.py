"""The stages `evaluate` and `ppo` check before the run begins that the server can take the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.build import model_config
from mlagent_jax.model.hf import hf_shapes
from mlagent_jax.stages.evaluate import STAGE
from mlagent_jax.stages.ppo import STAGE as PPO


def test_a_checkpoint_that_can_be_trained_but_not_served_is_refused_with_a_remedy(tmp_path: Path) -> None:
    shape = model_config(load_config().model, 512, 2, 1024)
    (tmp_path / "config.json").write_text(json.dumps(shape.to_hf("float32")))
    tensors = {name: np.zeros(size, np.float32) for name, size in hf_shapes(shape).items()}
    config = load_config(overrides=[f"model.path={tmp_path}", "evaluate.pretrained=true"])
    save_file(tensors, tmp_path / "model.safetensors")
    STAGE.check(config)
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embedding.copy()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^evaluate.pretrained=true: .* unknown lm_head.weight; set evaluate.pretr"):
        STAGE.check(config)
    save_file(tensors | {"model.embed_tokens.weight": embedding.astype(np.float64)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^evaluate.pretrained=true: .* is F64; .*; set evaluate.pretrained=false$"):
        STAGE.check(config)
    adapters = ["adapter.rank=4", "sft.optimizer=adamw", "server.weight_transfer=adapter"]
    with pytest.raises(ValueError, match=r"^server.weight_transfer=adapter: .* is F64; .*; set server."):
        PPO.check(load_config(overrides=[f"model.path={tmp_path}", *adapters]))
