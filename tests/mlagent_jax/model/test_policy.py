"""`mlagent_jax.load_policy` returns a policy that maps token ids to logits, and refuses other inputs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mlagent_jax
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.model.transformer import Transformer


@pytest.fixture(scope="module")
def policy(make_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory) -> ExportedPolicy:
    folder = tmp_path_factory.mktemp("policy")
    save_hf(make_model(), folder)
    return mlagent_jax.load_policy(str(folder))


def test_logits_are_the_same_for_lists_and_arrays_and_fp32(policy: ExportedPolicy) -> None:
    rows = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    found = policy.logits(rows)
    assert found.shape == (2, 5, policy.config.vocab_size) and found.dtype == np.float32
    for same in (np.array(rows), jnp.array(rows), np.array(rows, np.uint8)):
        np.testing.assert_array_equal(policy.logits(same), found)


def test_logits_depend_on_what_came_before_and_on_nothing_after(policy: ExportedPolicy) -> None:
    whole = np.random.default_rng(0).integers(0, 64, (1, 16))
    found = policy.logits(whole)
    np.testing.assert_allclose(policy.logits(whole[:, :9]), found[:, :9], rtol=1e-4, atol=1e-5)
    other = whole.copy()
    other[0, 0] = (other[0, 0] + 1) % 64
    assert np.abs(policy.logits(other)[0] - found[0]).max(axis=-1).min() > 1e-3


def test_rows_that_grow_compile_a_few_times_only(policy: ExportedPolicy, num_programs: Callable[[Any], int]) -> None:
    before = num_programs(policy._logits)
    for length in range(1, 18):
        assert policy.logits([[3] * length]).shape[1] == length
    assert num_programs(policy._logits) <= before + 2


@pytest.mark.parametrize(
    ("token_ids", "complaint"),
    [
        ([[1, 2], [3]], "rows of different lengths; pad the shorter ones"),
        ([1, 2, 3], r"got shape \(3,\) of int64; expected integers \[B, T\]"),
        ([[1.0, 2.0]], "of float64; expected integers"),
        ([[]], "at least one in each dimension"),
        ([[1, 64]], "64 is not in the vocabulary of 64"),
        ([[-1, 2]], "-1 is not in the vocabulary"),
    ],
)
def test_ids_that_are_none_are_refused(policy: ExportedPolicy, token_ids: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        policy.logits(np.array(token_ids) if complaint.startswith(("got", "of")) else token_ids)


def test_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/config\.json: no such file; expected a Hugging Face model"):
        mlagent_jax.load_policy(tmp_path / "nowhere")


def test_importing_the_package_imports_no_jax_and_unknown_names_are_errors() -> None:
    code = "import sys, mlagent_jax; assert not {'jax', 'torch', 'numpy'} & set(sys.modules); mlagent_jax.load_policies"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'mlagent_jax' has no attribute 'load_policies'" in ended.stderr
