"""Offloaded moments get the host memory that they need, or one line says how much that is."""

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.plans import planned_sizes, reserve_host_memory
from mlagent_jax.run import host_memory

SIZES = ["model.num_layers=28", "model.hidden_size=3584", "model.num_heads=28", "model.num_kv_heads=4"]
SEVEN_B = [*SIZES, "model.intermediate_size=18944", "tokenizer.vocab_size=152064", "model.tie_word_embeddings=false"]
SEVEN_B += ["ppo.advantage=gae"]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(host_memory.LIMIT, "0")  # so that what a test sets is taken back
    monkeypatch.delenv(host_memory.LIMIT)
    return monkeypatch


def test_limit_holds_the_moments_of_policy_and_critic(given: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["optimizer_state.offload=true", *SEVEN_B])
    policy, head = 7_615_616_512, 152_064 * 3_584
    assert host_memory.moment_bytes(planned_sizes(config), config.adapter, "float32", True) == 2 * 4 * (
        policy + policy - head
    )
    given.setattr(host_memory, "machine_memory_mb", lambda: 2**20)  # a host of 1 TiB
    reserve_host_memory(config)
    assert host_memory.os.environ[host_memory.LIMIT] == "129"
    given.setenv(host_memory.LIMIT, "64")
    with pytest.raises(ConfigError, match=r"needs 121 GiB of host memory, and XLA_.*=64 allows less; unset it"):
        reserve_host_memory(config)


def test_host_with_too_little_memory_is_refused_with_the_figure(given: pytest.MonkeyPatch) -> None:
    given.setattr(host_memory, "machine_memory_mb", lambda: 2**16)  # 64 GiB
    shared = load_config(
        None, ["optimizer_state.offload=true", "ppo.critic=shared", "ppo.critic_warmup_updates=0", *SEVEN_B]
    )
    reserve_host_memory(shared)
    given.delenv(host_memory.LIMIT)
    config = load_config(None, ["optimizer_state.offload=true", *SEVEN_B])
    with pytest.raises(ConfigError, match="needs 121 GiB of host memory, and this host has 64; use a larger"):
        reserve_host_memory(config)


def test_nothing_is_set_without_offload(given: pytest.MonkeyPatch) -> None:
    reserve_host_memory(load_config())
    assert host_memory.LIMIT not in host_memory.os.environ
