"""Load and save Hugging Face directories: `config.json`, and safetensors under transformers' names.

Both work tensor by tensor. Loading reads from the files only what each device holds; saving holds the tensors of one
file at a time. Neither needs a second copy of the model on the host.
"""

from mlagent_jax.model.hf.layout import hf_shapes
from mlagent_jax.model.hf.load import check_hf, load_hf
from mlagent_jax.model.hf.save import MARKER, hf_tensors, save_hf, save_tensors
from rollout.storage.weight_map import INDEX, WEIGHTS

__all__ = ["INDEX", "MARKER", "WEIGHTS", "check_hf", "hf_shapes", "hf_tensors", "load_hf", "save_hf", "save_tensors"]
