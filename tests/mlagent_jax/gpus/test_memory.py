"""The plan's arithmetic against XLA's compiler, and the plan itself on made-up GPUs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Adapter, Config, ConfigError, Mesh, Server, Trainer
from mlagent_jax.gpus.assignment import assign
from mlagent_jax.gpus.plan import Plan, make_plan
from mlagent_jax.gpus.server_memory import memory_beside_trainer, serving
from mlagent_jax.gpus.training_memory import count_parameters, fine_tuning, ppo_learning
from mlagent_jax.gpus.visible import Gpu
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.sizes import planned_config
from tasks.units import GIB, MIB

ROOT = Path(__file__).parents[3]
COMPILED = {
    "qwen2_5_7b_on_64_v5e": "qwen2_5_7b_v5e",
    "qwen2_5_7b_on_64_v5p": "qwen2_5_7b_tpu",
    "qwen2_5_7b_on_64_v6e": "qwen2_5_7b_v6e",
    "qwen2_5_32b_on_128_v5p": "qwen2_5_32b_tpu",
}
QWEN_32B = Qwen2Config(152064, 5120, 27648, 64, 40, 8, 128, tie_word_embeddings=False)
QWEN_7B = Qwen2Config(152064, 3584, 18944, 28, 28, 4, 128, tie_word_embeddings=False)
QWEN_HALF_B = Qwen2Config(151936, 896, 4864, 24, 14, 2, 64)


def sizes_of(config: Config) -> TransformerConfig:
    return planned_config(config.model, config.tokenizer.vocab_size, config.mesh, config.sft.max_length)


def test_parameters_are_those_of_the_released_checkpoints() -> None:
    assert count_parameters(QWEN_7B) == 7_615_616_512
    assert count_parameters(QWEN_HALF_B) == 494_032_768
    assert count_parameters(QWEN_7B, with_head=False) == 7_615_616_512 - 152064 * 3584


def test_server_beside_the_trainer_takes_its_share_or_what_its_cache_asks_for() -> None:
    def taken(num_gpus: int = 1, trainer: tuple[int, ...] | None = None, **settings: object) -> int:
        return memory_beside_trainer(QWEN_HALF_B, Server(**settings), Trainer(gpus=trainer), num_gpus, 80 * GIB)

    asked = serving(QWEN_HALF_B, Server(kv_cache_mb=1024, dtype="bfloat16"))
    assert taken(kv_cache_mb=1024, dtype="bfloat16") == round(2 * 494_032_768 + GIB + asked.other)
    assert taken() == 0.3 * 80 * GIB
    assert taken(memory_fraction=0.5) == taken(memory_fraction=0.5, gpus=(0,)) == 0.5 * 80 * GIB
    assert taken(gpus=(1,)) == taken(2, (0, 2), gpus=(1,)) == 0
    assert taken(2, gpus=(1,)) == taken(2, (0, 2), gpus=(2,)) == 0.3 * 80 * GIB
    assert taken(address="http://10.0.0.2:8000") == 0


@pytest.mark.parametrize(("compiled_for", "name"), COMPILED.items())
def test_estimates_are_above_what_the_compiler_allocates_but_not_far(compiled_for: str, name: str, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    compiled = json.loads((ROOT / f"benchmarks/results/scaling/{compiled_for}.json").read_text())
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    assert compiled["mesh"]["fsdp"] == config.mesh.fsdp
    memory = {program["program"]: program["memory"] for program in compiled["programs"]}
    arguments = config.model, config.adapter, config.sft, config.optimizer_state, config.mesh
    tuning = fine_tuning(sizes_of(config), *arguments)
    learning = ppo_learning(sizes_of(config), config.model, config.adapter, config.ppo, *arguments[3:])
    held = memory["sft step"]["arguments"] + memory["sft step"]["resident"]
    assert sum(tuning.kept.values()) == pytest.approx(held, rel=0.01)
    for need, program in ((tuning, "sft step"), (learning, "policy gradients")):
        assert memory[program]["temporaries"] < need.step < 1.3 * memory[program]["temporaries"]


def test_estimates_hold_for_the_gpu_compiler_too() -> None:
    """Temporaries that XLA's GPU compiler allocated for Qwen2.5-7B on eight H100: 14.3 GiB and 10.8 GiB."""
    config = load_config(ROOT / "configs/qwen2_5_7b_tpu.yaml")
    mesh = Mesh(fsdp=8)
    sft, ppo = replace(config.sft, rows_per_micro_batch=8), replace(config.ppo, rows_per_micro_batch=8)
    tuning = fine_tuning(QWEN_7B, config.model, config.adapter, sft, config.optimizer_state, mesh)
    learning = ppo_learning(QWEN_7B, config.model, config.adapter, ppo, config.optimizer_state, mesh)
    assert sum(tuning.kept.values()) - tuning.kept["best parameters"] == pytest.approx(10.6 * GIB, rel=0.01)
    assert 14.3 * GIB < tuning.step < 1.3 * 14.3 * GIB
    assert 10.8 * GIB < learning.step < 1.3 * 10.8 * GIB


def gpus(count: int, gib: float, used: float = 0.0) -> list[Gpu]:
    return [Gpu(n, f"GPU-{n}", int(gib * GIB), int(used * GIB), "Card") for n in range(count)]


def plan(count: int, gib: float, *settings: str, network: TransformerConfig = QWEN_HALF_B, used: float = 0.0) -> Plan:
    """Return the plan of a run of a 0.5B model in bfloat16 with small batches, or of another network."""
    small = ("model.dtype=bfloat16", "server.dtype=bfloat16", "sft.max_length=4096", "sft.rows_per_micro_batch=1")
    small += (
        "sft.batch_size=16",
        "server.max_model_len=4096",
        "server.kv_cache_mb=null",
        "ppo.row_length=6144",
        "ppo.advantage=gae",
    )
    config = load_config(None, [*small, "model.remat=layer", "ppo.rows_per_micro_batch=1", *settings])
    mesh = config.mesh
    found = assign(gpus(count, gib, used), config.trainer, config.server, mesh.data * mesh.fsdp * mesh.tensor)
    needs = [
        fine_tuning(network, config.model, config.adapter, config.sft, config.optimizer_state, mesh),
        ppo_learning(network, config.model, config.adapter, config.ppo, config.optimizer_state, mesh),
    ]
    return make_plan(found, needs, serving(network, config.server), config.server)


def test_a_plan_says_what_lies_where() -> None:
    shown = plan(1, 80)
    assert shown.warnings == ()
    assert shown.lines[0] == "GPU 0 (Card, 80.0 GiB): trainer 52.0, server 24.0"
    assert shown.lines[1].startswith("fine-tuning, GiB per GPU: parameters 1.8 + best parameters 1.8 + moments 3.7 + ")
    assert shown.lines[2].startswith("PPO, GiB per GPU: policy 1.8 + reference 0.9 + critic 1.8 + moments 7.4 + ")
    assert shown.lines[3].startswith("server, GiB per GPU: weights 0.9 + cache about ") and len(shown.lines) == 4
    two = plan(2, 80)
    assert two.lines[:2] == ("GPU 0 (Card, 80.0 GiB): trainer 72.0", "GPU 1 (Card, 80.0 GiB): server 72.0")


@pytest.mark.parametrize(
    ("count", "gib", "settings", "remedy"),
    [
        (1, 80, ["server.memory_fraction=0.5", "trainer.memory_fraction=0.6"], "lower trainer.memory_fraction or serv"),
        (
            1,
            16,
            [],
            "PPO keeps .* GiB .* trainer has 10.4; set ppo.critic=shared, lower server.memory_fraction, raise me",
        ),
        (
            2,
            24,
            ["server.memory_fraction=0.03"],
            "raise server.memory_fraction or server.tensor_parallel, or lower serv",
        ),
        (
            2,
            24,
            ["server.kv_cache_mb=40"],
            "server.kv_cache_mb=40 does not hold one request of server.max_model_len=4096",
        ),
        (2, 24, ["server.kv_cache_mb=22000"], "raise server.memory_fraction or .* or lower server.kv_cache_mb"),
    ],
)
def test_what_cannot_fit_ends_the_run_with_the_key_to_change(count, gib, settings, remedy) -> None:
    with pytest.raises(ConfigError, match=remedy):
        plan(count, gib, *settings)


def test_a_seven_billion_network_does_not_fit_on_two_cards_and_does_on_eight() -> None:
    long = ("ppo.row_length=16384", "server.max_model_len=16384", "sft.max_length=15000")
    with pytest.raises(
        ConfigError, match="fine-tuning keeps 113.5 GiB on each GPU, most of it moments .56.7., and the"
    ):
        plan(2, 80, *long, network=QWEN_7B)
    many = ("mesh.fsdp=8", "sft.rows_per_micro_batch=8", "sft.batch_size=64", "ppo.rows_per_micro_batch=8", *long)
    assert plan(9, 79.6, *many, network=QWEN_7B).warnings == ()
    eight = plan(8, 79.6, *many, network=QWEN_7B)  # the server shares the first
    assert "trainer 51.7, server 23.9" in eight.lines[0] and "server" not in eight.lines[1]


def test_an_estimate_alone_only_warns() -> None:
    (warning,) = plan(2, 20, "ppo.critic=shared", "ppo.critic_warmup_updates=0", "sft.max_length=120000").warnings
    assert "fine-tuning may need" in warning and "lower sft.rows_per_micro_batch or sft.max_length" in warning


def test_memory_that_others_use_is_counted() -> None:
    with pytest.raises(
        ConfigError, match="GPU 0 has 80.0 GiB, of which other processes use 30.0, and trainer takes? 72"
    ):
        plan(2, 80, used=30.0)


def test_a_plan_of_the_server_follows_its_devices() -> None:
    one, two = serving(QWEN_7B, Server()), serving(QWEN_7B, Server(tensor_parallel=2, kv_cache_mb=1000))
    assert one.weights == 2 * 7_615_616_512 and two.weights == one.weights / 2
    assert one.token == 2 * 28 * 4 * 128 * 2 and two.token == one.token / 2
    assert (one.cache, two.cache) == (None, 1000 * MIB)
    assert serving(QWEN_7B, Server(dtype="float32")).weights == 2 * one.weights
    assert Trainer().gpus is None


def test_an_adapter_is_counted_as_the_compiler_shards_it() -> None:
    """Half of its factors have no dim that the fsdp axis divides."""
    path = ROOT / "benchmarks/results/scaling/qwen2_5_32b_on_four_h100_adapter_rank_32.json"
    programs = {each["program"]: each["memory"] for each in json.loads(path.read_text())["programs"]}
    config, adapter, mesh = load_config(ROOT / "configs/qwen2_5_7b_lora_1gpu.yaml"), Adapter(rank=32), Mesh(fsdp=4)
    tuning = fine_tuning(QWEN_32B, config.model, adapter, config.sft, config.optimizer_state, mesh)
    assert tuning.kept["best parameters"] == pytest.approx(programs["sft step"]["resident"], rel=0.01)
    held = programs["sft step"]["arguments"] + programs["sft step"]["resident"]
    assert sum(tuning.kept.values()) == pytest.approx(held, rel=0.01)


def test_the_server_has_room_for_two_adapters_if_it_takes_them() -> None:
    adapter, server = Adapter(rank=32), Server(kv_cache_mb=1024, dtype="bfloat16")
    plain, taking = (serving(QWEN_7B, each, adapter) for each in (server, replace(server, weight_transfer="adapter")))
    assert taking.other - plain.other == 2 * 2 * 80_740_352
    assert serving(QWEN_7B, server) == plain
