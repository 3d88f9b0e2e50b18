"""The benchmark of the states at the start of PPO."""

import argparse
from pathlib import Path

from benchmarks.pool_start import measure
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from tasks.system_text import system_text


def test_all_states_have_the_tokens_of_their_whole_text(tmp_path: Path):
    tokenizer: ChatTokenizer = train_tokenizer([system_text("full", 100)], tmp_path, 600)
    figures = measure(argparse.Namespace(tokenizer=tokenizer.folder, trajectories=3, steps=5, reference=3))
    assert figures["states"] == 15 and figures["tokens_of_states"] > 2 * figures["tokens_of_trajectories"]
