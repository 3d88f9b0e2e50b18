"""Bad settings are one clear line; good ones come back as they were."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlagent_jax.configuration import loading
from mlagent_jax.configuration.loading import QUICKSTART, keys, load_config, to_yaml
from mlagent_jax.configuration.schema import Config, ConfigError


def complaint(*overrides: str) -> str:
    """Return what is said about the overrides."""
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_override_sets_one_key_and_leaves_the_rest() -> None:
    config = load_config(None, ["ppo.num_updates=7", "tasks.held_in=[digit_images, house_price]"])
    assert config.ppo.num_updates == 7
    assert config.tasks.held_in == ("digit_images", "house_price")
    assert config.ppo.clip == load_config().ppo.clip


def test_yaml_round_trip_is_the_same_configuration(tmp_path: Path) -> None:
    config = load_config(None, ["seed=3", "sft.learning_rate=1e-5", "tasks.held_out=[]"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


PATHS = ("run_dir", "mirror", "model.path", "collect.source", "tasks.raw", "ideas.encoder", "executor.python")


def test_a_tilde_in_any_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("model: {path: ~/models/mine}\n")
    (tmp_path / "c.yaml").write_text("base: ~/base.yaml\ntasks: {raw: ~/raw}\n")
    config = load_config(tmp_path / "c.yaml", ["run_dir=~/runs/a b"])
    home = str(tmp_path)
    assert (config.model.path, config.tasks.raw) == (f"{home}/models/mine", f"{home}/raw")
    assert config.run_dir == f"{home}/runs/a b"
    written = yaml.safe_load(to_yaml(load_config(None, [f"{name}=~/x" for name in PATHS])))
    for name in PATHS:
        section, _, key = name.rpartition(".")
        assert (written[section] if section else written)[key] == f"{home}/x", name


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("# Gr\xf6\xdfe\nseed: 3\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml: byte 4 is not UTF-8; save the file as UTF-8"):
        load_config(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_bytes("\ufeffseed: 3\n".encode())
    assert load_config(tmp_path / "d.yaml").seed == 3


def test_paths_without_a_tilde_stay_as_written() -> None:
    config = load_config(None, ["run_dir=runs//a/", "mirror=gs://bucket/run", "collect.source=a/~b"])
    assert (config.run_dir, config.mirror, config.collect.source) == ("runs//a/", "gs://bucket/run", "a/~b")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("ppo: {num_updates: 3, clip: 0.1}\n")
    config = load_config(tmp_path / "c.yaml", ["ppo.num_updates=4"])
    assert (config.ppo.num_updates, config.ppo.clip) == (4, 0.1)


def test_number_without_a_point_is_a_number() -> None:
    # YAML 1.1 reads 1e-6 as a string.
    assert load_config(None, ["ppo.learning_rate=1e-6"]).ppo.learning_rate == 1e-6


def test_empty_value_is_null() -> None:
    assert load_config(None, ["sft.max_steps="]).sft.max_steps is None


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("ppo.num_update=3", "ppo.num_updates"),
        ("pp.num_updates=3", "ppo.num_updates"),
        ("num_updates=3", "ppo.num_updates"),
        ("sft.kl_coeficient=1", "ppo.kl_coefficient"),
        ("rundir=x", "run_dir"),
    ],
)
def test_unknown_key_suggests_the_nearest(override: str, nearest: str) -> None:
    assert complaint(override) == f"unknown key {override.partition('=')[0]}; did you mean {nearest}?"


def test_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("ppo:\n  colour: blue\n")
    with pytest.raises(ConfigError, match=r"unknown key ppo\.colour"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ppo.num_updates=many", ("ppo.num_updates", "got many", "integer", "Number of updates")),
        ("ppo.num_updates=2.5", ("got 2.5", "integer")),
        ("ppo.num_updates='3'", ("got '3'", "integer")),
        ("model.tie_word_embeddings=1", ("got 1", "boolean")),
        ("sft.batch_size=true", ("got true", "integer")),
        ("sft.learning_rate=-1", ("got -1", "greater than 0")),
        ("reward.version=v3", ("got v3", "'v1' or 'v2'")),
        ("tasks.held_in=digits", ("tasks.held_in", "got digits", "a list")),
        ("ppo=3", ("ppo is a section", "got 3", "ppo.num_updates")),
        ("ppo.clip.low=3", ("ppo.clip", "number")),
        ("ppo.num_updates", ("not understood", "key.sub=value")),
        ("ideas.source=[", ("not YAML",)),
    ],
)
def test_wrong_value_names_key_got_and_expected(override: str, words: tuple[str, ...]) -> None:
    said = complaint(override)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["model.num_heads=3"], "use model.hidden_size=240"),
        (
            ["model.hidden_size=192"],
            "heads of size 48, which vLLM does not serve everywhere; use model.hidden_size=128",
        ),
        (["model.num_kv_heads=3"], "use 1 or 2 or 4"),
        (["mesh.data=4"], "devices of mesh axes (data, fsdp); use 4"),
        (["mesh.fsdp=3", "sft.batch_size=3"], "model.hidden_size=256 is not divisible by mesh.fsdp=3; lower mesh.fsdp"),
        (["mesh.context=5"], "sft.max_length=1152 is not divisible by mesh.context=5, the number of shards of a row"),
        (["mesh.context=9"], "ppo.row_length=1792 is not divisible by mesh.context=9"),
        (["ppo.row_length=512"], "make it at least as long"),
        (["ppo.advantage=leave_one_out", "ppo.samples_per_state=1"], "ppo.samples_per_state to 2"),
        (["reward.version=v1"], "rewards them with 0.5 to 1; set ppo.reward_clip=null"),
        (["ppo.max_staleness=1", "ppo.importance_limit=null"], "trains on actions of older weights"),
        (["ppo.episodes=true"], "ppo.states_per_trajectory=1, not 2"),
        (["ppo.episodes=true", "ppo.states_per_trajectory=1", "ppo.states=evolving"], "ppo.states=expert"),
        (["ppo.max_response_tokens=1000"], "is more than the 896 predictions of a row"),
        (["ppo.predictions_per_row=64"], "set ppo.predictions_per_row=128"),
        (["ppo.advantage=group", "ppo.gamma=0.9"], "needs undiscounted returns; set both to 1"),
        (["ppo.kl_in=loss"], "has no gradient on average; use ppo.kl_estimator=k2"),
        (["ppo.critic=shared", "ppo.advantage=group"], "has no critic; use ppo.advantage=gae"),
        (
            ["ppo.critic=shared", "ppo.advantage=gae", "ppo.critic_warmup_updates=2"],
            "set ppo.critic_warmup_updates=0, not 2",
        ),
        (
            ["server.new_weights=restart", "server.address=http://a:1"],
            "set server.address=null to have it started here",
        ),
        (["expert.kind=endpoint", "sft.wordings=1"], "set it, or expert.kind=scripted"),
        (["ideas.source=endpoint"], "expert.kind=endpoint"),
        (["coder.budget_dollars=5", "coder.input_price=1.0"], "set coder.input_price and coder.output_price"),
        (
            ["expert={kind: endpoint, base_url: http://a/v1, model: m}", "sft.wordings=1"]
            + ["ideas.source=endpoint", "ideas.pool_size=500"],
            "lower it",
        ),
        (["tasks.held_in=[house_prices]"], "nearest: house_price"),
        (["tasks.held_out=[digit_images]"], "move it to tasks.held_in"),
        (["tasks.held_in=[digit_images, digit_images]"], "give it once"),
        (["ppo.max_response_tokens=4096", "ppo.predictions_per_row=4096"], "raise server.max_model_len"),
    ],
)
def test_settings_that_contradict_each_other_come_with_a_remedy(overrides: list[str], remedy: str) -> None:
    assert remedy in complaint(*overrides)


def test_key_given_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 1\nppo:\n  clip: 0.1\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: line 4: the key seed is given twice"):
        load_config(tmp_path / "c.yaml")


def test_file_that_is_no_mapping_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("- seed\n")
    with pytest.raises(ConfigError, match="expected keys and values"):
        load_config(tmp_path / "c.yaml")


def test_without_a_file_it_is_the_quickstart() -> None:
    assert load_config() == load_config(QUICKSTART)


def test_missing_quickstart_file_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "QUICKSTART", tmp_path / "quickstart.yaml")
    assert complaint().startswith(f"{tmp_path}/quickstart.yaml: no such file")
    assert complaint().endswith("give --config FILE")


def test_empty_file_is_the_papers_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "c.yaml") == Config()


def test_file_states_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: 3\nppo: {clip: 0.1, num_updates: 5}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("base: ../base.yaml\nppo: {num_updates: 7}\n")
    config = load_config(tmp_path / "sub" / "c.yaml")
    assert (config.seed, config.ppo.clip, config.ppo.num_updates) == (3, 0.1, 7)
    assert config.sft == Config().sft


def test_base_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\n")
    (tmp_path / "d.yaml").write_text("base: 3\n")
    (tmp_path / "e.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: its base b\.yaml has a base itself"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"d\.yaml: base: got 3, expected a file name"):
        load_config(tmp_path / "d.yaml")
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "e.yaml")


def test_path_of_a_checkpoint_resets_the_sizes_stated_below_it() -> None:
    config = load_config(None, ["model.path=somewhere"])
    assert load_config().model.num_layers == 2
    assert config.model.num_layers is config.model.tie_word_embeddings is config.tokenizer.vocab_size is None
    config = load_config(None, ["model.num_layers=3", "model.path=somewhere"])
    assert (config.model.num_layers, config.model.hidden_size) == (3, None)


def test_model_from_scratch_needs_its_sizes(tmp_path: Path) -> None:
    assert complaint("model.num_heads=null").startswith(
        "model.num_heads: null, expected a value, since model.path=null"
    )
    (tmp_path / "c.yaml").write_text("model: {path: null}\n")
    with pytest.raises(ConfigError, match="model.num_layers, model.hidden_size, .* tokenizer.vocab_size: null"):
        load_config(tmp_path / "c.yaml")


def test_import_of_the_schema_loads_no_backend() -> None:
    program = "import sys, mlagent_jax.configuration.loading; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"mlagent_jax.configuration.schema", "rollout.options"} <= set(loaded)
    assert {name for name in loaded if name.startswith("rollout.")} == {"rollout.options"}
    assert not {"jax", "pyarrow", "asyncio", "httpx"} & set(loaded)


def test_listed_defaults_are_the_defaults() -> None:
    # --help-keys shows these: each of them, given as an override, changes nothing.
    assert load_config(None, [f"{key.name}={key.default}" for key in keys()]) == Config()


@pytest.mark.parametrize("value", ["010", "12:30", "2024-01-01", "1:30.5", "9" * 5000])
def test_a_number_is_decimal(value: str) -> None:
    assert complaint(f"seed={value}").startswith(f"seed: got '{value[:40]}")
    assert load_config(None, ["seed=1_000"]).seed == 1000 and load_config(None, ["seed=-0"]).seed == 0


def test_a_comment_in_a_setting_is_no_part_of_a_path_that_is_lost() -> None:
    said = complaint("model.path=/data/run #2")
    assert said.endswith("""if it belongs to the value, give 'model.path="/data/run #2"'""")
    assert load_config(None, ['model.path="/data/run #2"']).model.path == "/data/run #2"
    assert load_config(None, ["model.path=/data/run#2"]).model.path == "/data/run#2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("? [a]\n: 1\n", "line 1: a key is a list or a section; expected a name"),
        ("seed: &a {x: *a}\n", "a value holds itself, or is nested too deeply; write it out"),
        ("seed: " + "[" * 3000, "a value holds itself, or is nested too deeply; write it out"),
        ("ppo:\n\tclip: 0.1\n", "line 2, column 1: not YAML (found character '\\t'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "c.yaml")
    assert str(raised.value).startswith(f"{tmp_path}/c.yaml: {said}") and "\n" not in str(raised.value)


def test_an_unknown_key_with_a_line_break_is_one_line() -> None:
    assert complaint("a\nb=3") == "unknown key a\\nb; --help-keys lists every key"


def test_constrained_responses_need_room_within_the_limit_of_tokens() -> None:
    least = "100 tokens are too few for a constrained response; expected at least"
    small = ("ppo.max_response_tokens=100", "evaluate.constrained=true")
    assert complaint(*small).startswith(f"ppo.max_response_tokens: {least}")
    assert complaint(*small).endswith("raise it, or set evaluate.constrained=false")
    expert = ("expert.structured_outputs=grammar", "expert.max_response_tokens=100")
    assert complaint(*expert).startswith(f"expert.max_response_tokens: {least}")
    assert "expert.structured_outputs=none" in complaint(*expert)
    assert "unknown key coder.structured_outputs" in complaint("coder.structured_outputs=grammar")
