"""A server that cannot be started on a TPU host is refused before the run."""

from pathlib import Path

import pytest

from mlagent_jax.configuration.schema import ConfigError, Server
from mlagent_jax.platform import tpu
from mlagent_jax.run import policy_server
from mlagent_jax.run.policy_server import check_server


@pytest.fixture
def tpu_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this look like a host with chips, JAX's library for them, and vLLM's build for them."""
    (tmp_path / "accel0").touch()
    (tmp_path / "libtpu.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tpu, "CHIPS", (str(tmp_path / "accel0"),))
    monkeypatch.setattr(policy_server, "is_cpu_build", lambda: False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


@pytest.mark.usefixtures("tpu_host")
@pytest.mark.parametrize("new_weights", ["load", "restart"])
def test_a_server_on_the_trainers_chips_is_refused_with_the_reason(new_weights: str) -> None:
    with pytest.raises(ConfigError, match="whose TPU chips the trainer holds") as error:
        check_server(Server(new_weights=new_weights))  # pyright: ignore[reportArgumentType]
    assert f"server.new_weights={new_weights}" in str(error.value) and "set server.address=" in str(error.value)


@pytest.mark.usefixtures("tpu_host")
def test_a_server_on_the_hosts_cpus_and_a_trainer_on_cpus_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(policy_server, "is_cpu_build", lambda: True)
        check_server(Server(new_weights="restart"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    check_server(Server(new_weights="restart"))
