"""Hugging Face directories in and out: `config.json` and safetensors under transformers' own names.

Both ways go tensor by tensor: reading takes from the files only what each device is to hold, writing holds one file's
tensors at a time. Neither ever has a second copy of the model on the host.
"""

from mlagent_jax.model.hf.layout import INDEX, WEIGHTS, hf_shapes
from mlagent_jax.model.hf.load import check_hf, load_hf
from mlagent_jax.model.hf.save import MARKER, hf_tensors, save_hf, save_tensors

__all__ = ["INDEX", "MARKER", "WEIGHTS", "check_hf", "hf_shapes", "hf_tensors", "load_hf", "save_hf", "save_tensors"]
