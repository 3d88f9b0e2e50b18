"""Broadcast new weights to the policy server's workers, and verify that they use them."""

from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.model.transformer import Transformer
from mlagent_jax.nccl.library import NcclLibrary
from mlagent_jax.nccl.sender import NcclSender, weight_parts
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import WeightSync, WeightWriter
from rollout.inference.client import PolicyClient
from rollout.runtime.event_loop import EventLoopThread


class NcclSync(WeightSync):
    """Send weights from the first GPU of process 0 to those of the server; nothing of them is written.

    The server has no older weights to return to if an update fails.
    """

    def __init__(
        self,
        client: PolicyClient,
        folder: Path,
        canary: Sequence[int],
        server_dtype: str,
        trainer_dtype: str,
        library: NcclLibrary,
    ) -> None:
        """Prepare the canary; the group with the workers is made by the first update. See `WeightSync`."""
        super().__init__(client, folder, canary, server_dtype, trainer_dtype)
        self._sender = NcclSender(library)

    def send(self, event_loop: EventLoopThread, model: Transformer, version: int) -> None:
        """See `WeightSync.send`."""
        canary = self.canary_of(canary_logprobs(model, self.canary))
        parts = weight_parts(model, self.dtype)
        event_loop.run(self.client.update_by_broadcast(self._sender, parts, version, canary))


class NcclFollower(WeightWriter):
    """The part of every process but 0: the devices of all gather the tensors that the first one sends."""

    def follow(self, model: Transformer) -> None:
        """See `WeightWriter.follow`."""
        canary_logprobs(model, self.canary)
        for _ in weight_parts(model, self.dtype):
            pass
