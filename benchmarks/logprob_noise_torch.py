"""Write the log-probabilities of token rows by transformers in bf16, the second implementation of `logprob_noise`.

    python -m benchmarks.logprob_noise_torch MODEL ROWS OUTPUT

ROWS is a .npy file of token ids `[B, T]`; OUTPUT becomes one of the log-probabilities `[B, T - 1]` in fp32.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Run the command line."""
    model, rows, output = map(Path, sys.argv[1:])
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    found = []
    with torch.inference_mode():
        for row in np.load(rows):
            tokens = torch.tensor(row[None].astype(np.int64))
            hidden = network.model(tokens).last_hidden_state[0, :-1]
            logits = hidden.float() @ network.lm_head.weight.float().T  # a head in fp32, as in the server
            found.append((logits.gather(1, tokens[0, 1:, None])[:, 0] - logits.logsumexp(-1)).numpy())
    np.save(output, np.stack(found))


if __name__ == "__main__":
    main()
