"""The description that a policy server gives of itself, and its comparison with the settings of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import httpx

from rollout.errors import ServerError
from rollout.inference.access import authorization
from rollout.inference.vllm_package import BEFORE, FIRST, installed_version, is_supported
from rollout.runtime.http import download_client, proxy_hint

PATH = "/mlagent/description"
SECONDS = 10.0
# The keys of `config.json` that determine the shapes of the weights.
SIZES = (
    *("architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)


@dataclass(frozen=True)
class ServerDescription:
    """The answer of a policy server about itself.

    Attributes:
        vllm: The version of vLLM.
        dtype: The type that it computes in.
        max_model_len: The length limit of prompt and response together, in tokens.
        sizes: The keys `SIZES` of the served model's `config.json`.
        weight_backend: The transfer engine of running weight updates, None if it can only be restarted.
        tensor_parallel: The number of devices of each replica.
        data_parallel: The number of replicas.
        waits_for: The directory that the server waits for, and then serves; None if it serves already.
        max_adapter_rank: The largest rank of adapters that it takes; 0 if it takes none.
    """

    vllm: str
    dtype: str
    max_model_len: int
    sizes: Mapping[str, Any]
    weight_backend: str | None
    tensor_parallel: int
    data_parallel: int
    waits_for: str | None = None
    max_adapter_rank: int = 0

    @classmethod
    def of_running(cls, config: Any) -> Self:
        """Return the description of the server whose `VllmConfig` this is; called in vLLM's process."""
        model, transfer, parallel = config.model_config, config.weight_transfer_config, config.parallel_config
        return cls(
            vllm=installed_version() or "",
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=model.max_model_len,
            sizes={name: getattr(model.hf_config, name, None) for name in SIZES},
            weight_backend=None if transfer is None else transfer.backend,
            tensor_parallel=parallel.tensor_parallel_size,
            data_parallel=parallel.data_parallel_size,
            max_adapter_rank=0 if config.lora_config is None else config.lora_config.max_lora_rank,
        )

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """Return the description in an answer. Raises TypeError if it is of another version of this project."""
        return cls(**answer)

    def to_json(self) -> dict[str, Any]:
        """Return the answer to a request for the description."""
        return asdict(self)

    def differences(
        self, dtype: str, max_model_len: int, weight_backend: str | None, adapter_rank: int = 0
    ) -> list[str]:
        """Return what differs from the settings of a run, each as `name: got, expected`.

        Args:
            dtype: The expected type, or `auto` for any.
            max_model_len: The least expected context length, in tokens.
            weight_backend: The expected transfer engine, None for no running updates.
            adapter_rank: The rank of the adapters that it is to take; 0 if it gets whole weights.
        """
        found = []
        if dtype not in ("auto", self.dtype):
            found.append(f"dtype is {self.dtype}, expected server.dtype={dtype}")
        if self.max_model_len < max_model_len:
            found.append(f"context is {self.max_model_len} tokens, expected server.max_model_len={max_model_len}")
        if weight_backend is not None and self.weight_backend != weight_backend:
            found.append(f"weight updates are {self.weight_backend or 'off'}, expected {weight_backend}")
        if self.max_adapter_rank < adapter_rank:
            has = f"rank {self.max_adapter_rank}" if self.max_adapter_rank else "none"
            found.append(f"adapters are {has} at most, expected adapter.rank={adapter_rank}")
        if adapter_rank == 0 and self.max_adapter_rank:
            found.append("it takes adapters, expected whole weights (server.weight_transfer)")
        if not is_supported(self.vllm):
            found.append(f"vLLM is {self.vllm}, expected {FIRST} or later, before {BEFORE}")
        return found

    def other_sizes(self, expected: Mapping[str, Any]) -> list[str]:
        """Return which sizes of the served network differ from those in a `config.json`."""
        if self.waits_for is not None:
            return []
        return [
            f"{name} is {self.sizes[name]}, expected {expected[name]}"
            for name in SIZES
            if name in expected and self.sizes.get(name) is not None and self.sizes[name] != expected[name]
        ]


def read_description(address: str, key: str) -> ServerDescription:
    """Return what the server at an address says of itself.

    Args:
        address: The server's address.
        key: The server's key; empty if it has none.

    Raises:
        ServerError: If there is no answer.
        ValueError: If the server refuses the key, or was not started by this project.
    """
    try:
        with download_client(address, timeout=SECONDS) as client:
            answer = client.get(f"{address.rstrip('/')}{PATH}", headers=authorization(key))
    except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"the policy server at {address} does not answer ({reason}){proxy_hint(address)}") from None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise ValueError(
            f"the policy server at {address} refuses {'the key' if key else 'requests without a key'}; set the "
            "environment variable that server.api_key_env names to the key that the server was started with"
        )
    try:
        return ServerDescription.from_json(answer.raise_for_status().json())
    except (httpx.HTTPStatusError, ValueError, TypeError):
        raise ValueError(
            f"{address} does not say what it serves (HTTP {answer.status_code}); expected a policy server of this "
            "version of the project, with a key; start it with `mlagent server --config FILE`"
        ) from None
