"""Every family is one file named after its model type, and configurations are read without JAX."""

import subprocess
import sys

from mlagent_jax.model.families import FAMILIES
from mlagent_jax.model.sharding import COMMON_RULES, RULES


def test_a_file_of_a_family_is_named_after_its_model_type() -> None:
    assert {"qwen2", "qwen3"} <= FAMILIES.keys()
    assert {name: family.model_type for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}


def test_every_parameter_of_a_family_has_a_sharding_rule_of_its_own_or_a_common_one() -> None:
    for family in FAMILIES.values():
        assert family.sharding_rules.keys().isdisjoint(COMMON_RULES)
        assert family.sharding_rules.keys() <= family.layer_names.keys() <= RULES.keys()


def test_reading_a_configuration_imports_no_jax() -> None:
    code = "import sys, mlagent_jax.model.families; assert not {'jax', 'flax', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
