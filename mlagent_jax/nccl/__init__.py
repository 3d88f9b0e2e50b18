"""Send weights to the policy server's workers from GPU to GPU, over NCCL and without torch."""
