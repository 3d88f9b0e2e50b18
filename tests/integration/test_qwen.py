"""The real Qwen2.5-Coder-0.5B-Instruct that `make qwen` makes: its tokens, logits, answers and files."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, Qwen2Tokenizer

import mlagent_jax
from mlagent_jax.model.hf import load_hf, save_hf
from mlagent_jax.model.policy import ExportedPolicy
from rollout.endpoint import ChatEndpoint
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import ExpertError
from rollout.inference.access import KEY_VARIABLE
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.options import StructuredOutputs
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Response
from tasks.action import Action
from tasks.response import parse_response
from tasks.state import State
from tasks.system_text import system_text

pytestmark = pytest.mark.slow

FOLDER = Path("models/Qwen2.5-Coder-0.5B-Instruct")
GGUF = Path(".venv/opt/qwen/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
NUM_PLAIN_TOKENS = 151_643  # those after it are added
LENGTH = 2000
SYSTEM = system_text("full", 100)
SCRIPT = Path("tasks/catalog/house_price/train.py").read_text(encoding="utf-8")
STATE = State(f"Research problem olive: improve run_olive.py.\n\n{SCRIPT}").then(
    "Thought: the trees are shallow.\nAction: List Files", "Files: data_olive_train.csv, run_olive.py"
)
OTHER_SCRIPTS = (
    "机器学习模型的验证分数。데이터 학습。テスト用のデータを読み込む。 Καλημέρα κόσμε. "
    "שלום עולם 🙂🚀👩\u200d💻🇺🇳 e\u0301 \u200b\xa0"
)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(FOLDER, SYSTEM)


@pytest.fixture(scope="module")
def policy() -> ExportedPolicy:
    return mlagent_jax.load_policy(FOLDER)


@pytest.fixture(scope="module")
def reference() -> Qwen2Tokenizer:
    """transformers' tokenizer of the tokens, merges and added tokens that the GGUF file states."""
    fields = GGUFReader(GGUF).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    made = Qwen2Tokenizer({token: i for i, token in enumerate(tokens[:NUM_PLAIN_TOKENS])}, merges)
    made.add_tokens([token for token, kind in zip(tokens, types, strict=True) if kind in (3, 4)], special_tokens=True)
    return made


def test_tokens_are_those_of_the_published_file(tokenizer: ChatTokenizer, reference: Qwen2Tokenizer) -> None:
    added = reference.get_added_vocab()
    files = [*Path("rollout").rglob("*.py"), *Path("docs").rglob("*.md"), *Path("benchmarks/results").rglob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    texts += [OTHER_SCRIPTS, "".join(added), " ".join(added), "\n\n  \t x=1\r\n\r\n    y = '''a'''\r\n"]
    parsed = tokenizer.tokenizer
    parsed.encode_special_tokens = False  # as transformers does
    try:
        for text in texts:
            assert parsed.encode(text, add_special_tokens=False).ids == reference.encode(text)
    finally:
        parsed.encode_special_tokens = True
    assert len(added) == 22 and added["<|im_end|>"] == tokenizer.eos_id == 151_645
    assert sum(map(len, texts)) > 500_000


def test_logits_are_those_of_transformers(policy: ExportedPolicy, tokenizer: ChatTokenizer) -> None:
    code = tokenizer.encode(Path("mlagent_jax/model/transformer.py").read_text(encoding="utf-8") + OTHER_SCRIPTS)
    tokens = [*tokenizer.prompt_ids(STATE), *code, *code][:LENGTH]
    found = policy.logits([tokens])[0]
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    difference = np.abs(found - expected).max(-1) / np.abs(expected).max(-1)
    assert len(tokens) == LENGTH and difference.max() <= 1e-4
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the model in fp32."""
    options = ServerOptions(dtype="float32", max_model_len=2560, kv_cache_mb=256)
    with ServerProcess(FOLDER, tmp_path_factory.mktemp("server") / "server.log", options) as process:
        yield process


def test_greedy_answer_of_vllm_is_ours(policy: ExportedPolicy, tokenizer: ChatTokenizer, server: ServerProcess) -> None:
    prompt = tokenizer.prompt_ids(STATE)

    async def answer() -> tuple[int, ...]:
        # So cold that only a tie within rounding could be drawn otherwise than by argmax.
        async with PolicyClient(server.address, temperature=1e-4, max_tokens=64, stop_ids=[], key=server.key) as client:
            (completion,) = await client.sample(prompt, num_samples=1, seed=0)
            return completion.token_ids

    sampled = list(asyncio.run(answer()))
    # If each token is our first choice after those before it, our greedy answer is the same.
    ours = policy.logits([[*prompt, *sampled]])[0].argmax(-1)[len(prompt) - 1 : -1].tolist()
    assert len(sampled) == 64 and sampled == ours


@pytest.mark.parametrize("kind", ["grammar", "json_schema"])
def test_as_an_expert_it_acts_under_a_constraint_of_the_chat_endpoint(
    kind: StructuredOutputs, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, server.key)

    async def act() -> list[Response | None]:
        settings = {"max_response_tokens": 600, "timeout_seconds": 300.0}
        async with ChatEndpoint(
            f"{server.address}/v1", str(FOLDER.resolve()), ExpertError, KEY_VARIABLE, **settings
        ) as model:
            expert = EndpointExpert(model, SYSTEM, kind)
            return list(await asyncio.gather(*(expert.act(None, STATE, seed) for seed in range(3))))  # type: ignore[arg-type]

    for response in asyncio.run(act()):
        assert response is not None
        parsed = parse_response(response.text)
        assert isinstance(parsed.action, Action) and parsed.is_exact, response.text


def test_saved_again_the_weights_have_the_same_bytes(tmp_path: Path) -> None:
    save_hf(load_hf(FOLDER), tmp_path, dtype="bfloat16")
    assert _tensors(tmp_path) == _tensors(FOLDER)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((FOLDER / "config.json").read_text())


def _tensors(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of the bytes of each tensor."""
    content = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    spans = json.loads(content[8:start])
    spans.pop("__metadata__", None)
    digests = {}
    for name, described in spans.items():
        first, last = described["data_offsets"]
        key = f"{name} {described['dtype']} {described['shape']}"
        digests[key] = hashlib.sha256(content[start + first : start + last]).hexdigest()
    return digests
