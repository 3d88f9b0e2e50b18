"""The checksum of `mlagent_jax.model.checksum` in torch, inside vLLM's workers."""

import torch

WORDS = {2: torch.int16, 4: torch.int32}  # by the bytes of a value
MASK = 2**32 - 1
CHUNK = 2**24  # words at a time, so that the 8 bytes of each need little memory


def checksum(tensor: torch.Tensor) -> list[int]:
    """Return the sum of a contiguous tensor's words, and their sum weighted by position from 1, both modulo 2^32."""
    words = tensor.view(-1).view(WORDS[tensor.element_size()])
    mask = 2 ** (8 * tensor.element_size()) - 1
    plain = weighted = 0
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK].to(torch.int64) & mask
        positions = torch.arange(start + 1, start + len(part) + 1, device=part.device)
        plain += int(part.sum())
        weighted += int((part * positions).sum())  # what exceeds 64 bits does not reach the lower 32
    return [plain & MASK, weighted & MASK]
