"""The device mesh, and one strict table of the sharding of every parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from mlagent_jax.model.config import LAYER_NAMES
from mlagent_jax.model.families import FAMILIES

AXES = ("data", "fsdp", "tensor", "context")
BATCH = P(("data", "fsdp"))  # rows of a batch
RESIDUAL = P(("data", "fsdp"), "context")  # activations [B, T, D]

# parameter name -> mesh axis of each of its dims; L is never sharded
COMMON_RULES: Mapping[str, P] = {
    "embed_tokens": P("tensor", "fsdp"),
    "lm_head": P("tensor", "fsdp"),
    "norm": P(None),
    "value_head": P(None),
    "value_bias": P(),
    "input_layernorm": P(None, None),
    "post_attention_layernorm": P(None, None),
    "q_proj": P(None, "fsdp", "tensor", None),
    "k_proj": P(None, "fsdp", "tensor", None),
    "v_proj": P(None, "fsdp", "tensor", None),
    "o_proj": P(None, "tensor", None, "fsdp"),
    "gate_proj": P(None, "fsdp", "tensor"),
    "up_proj": P(None, "fsdp", "tensor"),
    "down_proj": P(None, "tensor", "fsdp"),
}
# matrix of a layer -> the number of its dims, after L, that a product sums over; an adapter can be added to each
NUM_INPUTS: Mapping[str, int] = {
    name: len(dims.split(",")[1]) for name, (_, dims) in LAYER_NAMES.items() if "," in dims
}


def adapter_names(matrix: str) -> tuple[str, str]:
    """Return the names of the two parameters of a matrix's adapter."""
    return f"{matrix}_lora_a", f"{matrix}_lora_b"


def _adapter_rules() -> dict[str, P]:
    """Return the rules of adapters: the dims of their matrices, and the rank, which is never sharded."""
    rules = {}
    for matrix, num_inputs in NUM_INPUTS.items():
        stack, *dims = COMMON_RULES[matrix]
        a, b = adapter_names(matrix)
        rules |= {a: P(stack, *dims[:num_inputs], None), b: P(stack, None, *dims[num_inputs:])}
    return rules


def _all_rules() -> dict[str, P]:
    """Return the rules of all parameters; two families may share a name only with the same rule."""
    rules = {**COMMON_RULES, **_adapter_rules()}
    for family in FAMILIES.values():
        for name, axes in family.sharding_rules.items():
            assert rules.setdefault(name, P(*axes)) == P(*axes), f"two sharding rules for {name}"
    return rules


RULES: Mapping[str, P] = _all_rules()


def make_mesh(data: int, fsdp: int, tensor: int, context: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh of the first data * fsdp * tensor * context devices, by default over all processes.

    Raises:
        ValueError: If there are fewer devices, or if there are several processes and the mesh leaves out a device.
    """
    shape = (data, fsdp, tensor, context)
    need, devices = int(np.prod(shape)), jax.devices() if devices is None else devices
    if need > len(devices):
        raise ValueError(
            f"mesh {dict(zip(AXES, shape, strict=True))} needs {need} devices, this machine has {len(devices)}; "
            "make the mesh smaller"
        )
    if need < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"mesh {dict(zip(AXES, shape, strict=True))} has {need} devices, the {jax.process_count()} processes have "
            f"{len(devices)} together; use them all, because a process without a device cannot take part"
        )
    # One axis of a slice may have to be split into two of the mesh, as in 128 = 8 x 16 chips into 64 x 2.
    arranged = mesh_utils.create_device_mesh(shape, devices[:need], allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_vocabulary(vocab_size: int, mesh: Mesh) -> None:
    """Raise ValueError if the mesh does not divide the rows of the embedding."""
    shards = mesh.shape["fsdp"] * mesh.shape["tensor"]
    if vocab_size % shards:
        raise ValueError(
            f"the model's {vocab_size} embedding rows are not divisible by mesh.fsdp * mesh.tensor = {shards}; lower "
            "one of them, or raise mesh.data instead"
        )


def parameter_shardings(parameters: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of every parameter.

    Raises:
        ValueError: If a parameter has no rule.
    """

    def sharding(path: tuple, leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        rule = _rule(path)
        if rule is None:
            raise ValueError(f"no sharding rule for {jax.tree_util.keystr(path)} of shape {leaf.shape}; add one")
        return NamedSharding(mesh, rule)

    return jax.tree_util.tree_map_with_path(sharding, parameters)


def optimizer_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of optimizer state: a moment has that of its parameter; the rest is replicated."""
    return jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(mesh, _rule(path) or P()), state)


def parameter_name(path: tuple) -> str | None:
    """Return the name of the parameter at a path of a tree, or None if there is no parameter."""
    names = [name for entry in path if (name := _name(entry)) in RULES]
    return names[-1] if names else None


def is_matrix(path: tuple) -> bool:
    """Return whether a path of a tree leads to a parameter that the fsdp axis divides.

    That is a weight matrix, stacked over layers or not, or one factor of its adapter.
    """
    name = parameter_name(path)
    return name is not None and is_matrix_name(name)


def is_matrix_name(name: str) -> bool:
    """Return whether the fsdp axis divides the parameter of a name; see `is_matrix`."""
    return "fsdp" in RULES[name]


def _rule(path: tuple) -> P | None:
    name = parameter_name(path)
    return None if name is None else RULES[name]


def _name(entry: object) -> str:
    return str(getattr(entry, "key", getattr(entry, "name", "")))


def constrain(x: Array, mesh: Mesh | None, spec: P) -> Array:
    """Return `x` with the sharding `spec` inside a compiled function; unchanged without a mesh."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


class Frozen(nnx.Variable):
    """A weight that is not trained; see `mlagent_jax.model.adapter`."""


NOTHING = nnx.State({})  # the frozen weights of a network that is trained in full


def parameters_of(model: nnx.Module) -> PyTree:
    """Return the parameters that are trained as a pytree."""
    return nnx.state(model, nnx.Param)


def count_values(tree: PyTree) -> int:
    """Return the number of values in all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def frozen_of(model: nnx.Module) -> PyTree:
    """Return the frozen weights as a pytree, `NOTHING` if all are trained."""
    return nnx.state(model, Frozen)
