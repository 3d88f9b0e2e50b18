"""Check that the settings of a configuration fit together, before anything starts."""

from mlagent_jax.configuration.endpoint_models import EndpointModel
from mlagent_jax.configuration.schema import PPO, Config, ConfigError, Mesh, Model, Tokenizer
from rollout.options import ExecutorOptions
from tasks import registry
from tasks.response_grammar import response_grammar

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)  # those that vLLM's attention supports on CPUs and GPUs
SIZES = (
    *("num_layers", "hidden_size", "num_heads", "num_kv_heads", "intermediate_size"),
    *("rope_theta", "tie_word_embeddings"),
)  # the keys of the section `model` that a checkpoint determines


def check(config: Config) -> None:
    """Raise ConfigError for the first settings that contradict each other, with a remedy."""
    _check_endpoints(config)
    _check_executor(config.executor)
    if config.model.path is None:
        _check_scratch(config.model, config.tokenizer)
    _check_adapter(config)
    check_sizes(config.model, config.mesh)
    _check_batches(config)
    _check_moments(config)
    _check_credit(config.ppo)
    if config.reward.version == "v1" and config.ppo.reward_clip is not None and config.ppo.reward_clip < 1:
        raise ConfigError(
            f"ppo.reward_clip={config.ppo.reward_clip} would make all improvements alike, because reward.version=v1 "
            "rewards them with 0.5 to 1; set ppo.reward_clip=null"
        )
    _check_tasks("held_in", config.tasks.held_in, config.tasks.paths)
    _check_tasks("held_out", config.tasks.held_out, config.tasks.paths)
    if config.server.new_weights == "restart" and config.server.address is not None:
        raise ConfigError(
            f"server.new_weights=restart cannot restart the server at server.address={config.server.address}; set "
            "server.address=null to have it started here, or server.new_weights=load"
        )
    if config.server.new_weights == "restart" and config.server.weight_transfer != "files":
        raise ConfigError(
            f"server.weight_transfer={config.server.weight_transfer} cannot send weights to a server that "
            "server.new_weights=restart stops; set server.weight_transfer=files, or server.new_weights=load"
        )
    _check_gpus("trainer.gpus", config.trainer.gpus)
    _check_gpus("server.gpus", config.server.gpus, config.server.tensor_parallel * config.server.data_parallel)
    if config.evaluate.pretrained and config.model.path is None:
        raise ConfigError(
            "evaluate.pretrained=true, but model.path=null starts from random weights; set evaluate.pretrained=false"
        )
    if config.evaluate.constrained:
        _check_grammar("ppo.max_response_tokens", config.ppo.max_response_tokens, "evaluate.constrained=false")
    if config.ppo.max_response_tokens >= config.server.max_model_len:
        raise ConfigError(
            f"ppo.max_response_tokens={config.ppo.max_response_tokens} leaves no room for a prompt in "
            f"server.max_model_len={config.server.max_model_len}; raise server.max_model_len"
        )


def _check_adapter(config: Config) -> None:
    if config.server.weight_transfer == "adapter" and config.adapter.rank is None:
        raise ConfigError(
            "server.weight_transfer=adapter sends adapters, but adapter.rank=null trains all weights; set "
            "adapter.rank, or server.weight_transfer=files"
        )
    if config.served_rank and config.ppo.max_staleness > 1:
        raise ConfigError(
            f"ppo.max_staleness={config.ppo.max_staleness} needs more adapters at a time than the two that the server "
            "takes with server.weight_transfer=adapter; set ppo.max_staleness=1, or server.weight_transfer=files"
        )
    if config.sft_adapter.rank is not None and config.sft.optimizer != "adamw":
        raise ConfigError(
            f"sft.optimizer={config.sft.optimizer} is for whole matrices, not for adapters; set sft.optimizer=adamw, "
            "or adapter.rank=null"
        )
    if config.adapter.first_stage == "ppo":
        if config.adapter.path is not None:
            raise ConfigError(
                f"adapter.path={config.adapter.path} is an adapter for fine-tuning to go on from, but with "
                "adapter.first_stage=ppo it trains all weights; set adapter.path=null, or adapter.first_stage=sft"
            )
        if config.evaluate.pretrained and config.model.path is not None and config.served_rank:
            raise ConfigError(
                "evaluate.pretrained=true needs the checkpoint at model.path, but with adapter.first_stage=ppo and "
                "server.weight_transfer=adapter the server has the fine-tuned weights; set evaluate.pretrained=false, "
                "or server.weight_transfer=files"
            )


def _check_gpus(key: str, gpus: tuple[int | str, ...] | None, count: int | None = None) -> None:
    if gpus is None:
        return
    if len(set(gpus)) != len(gpus):
        raise ConfigError(f"{key}={list(gpus)} names a GPU twice; name each once")
    if count is not None and len(gpus) != count:
        raise ConfigError(
            f"{key}={list(gpus)} has {len(gpus)} GPUs, expected server.tensor_parallel * server.data_parallel = "
            f"{count}; give as many, or change one of the two"
        )


def _check_executor(executor: ExecutorOptions) -> None:
    if executor.isolation == "bubblewrap":  # the default needs no check, and so no import of the backend
        return
    from rollout.executor.backends.registry import check_options

    try:
        check_options(executor)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_tasks(split: str, names: tuple[str, ...], paths: tuple[str, ...]) -> None:
    for name in names:
        try:
            actual = registry.find(name, paths).split
        except ValueError as error:
            raise ConfigError(f"tasks.{split}: {error}") from None
        if actual != split:
            raise ConfigError(f"tasks.{split}: {name} is one of the {actual} tasks; move it to tasks.{actual}")
        if names.count(name) > 1:
            raise ConfigError(f"tasks.{split}: {name} is given twice; give it once")


def _check_endpoints(config: Config) -> None:
    def check_endpoint(name: str, model: EndpointModel) -> None:
        for key in ("base_url", "model"):
            if model.kind == "endpoint" and not getattr(model, key):
                raise ConfigError(f"{name}.kind=endpoint needs {name}.{key}; set it, or {name}.kind=scripted")
        if model.budget_dollars is not None and not (model.input_price and model.output_price):
            raise ConfigError(
                f"{name}.budget_dollars={model.budget_dollars:g} needs prices; set {name}.input_price and "
                f"{name}.output_price, or {name}.budget_tokens instead"
            )

    check_endpoint("expert", config.expert)
    check_endpoint("coder", config.coder)
    if config.expert.structured_outputs == "grammar":
        remedy = "expert.structured_outputs=none"
        _check_grammar("expert.max_response_tokens", config.expert.max_response_tokens, remedy)
    if config.ideas.source == "endpoint" and config.expert.kind == "scripted":
        raise ConfigError("ideas.source=endpoint asks the expert's endpoint; set expert.kind=endpoint too")
    if config.ideas.source == "endpoint" and config.ideas.pool_size > config.ideas.candidates_per_axis:
        raise ConfigError(
            f"ideas.pool_size={config.ideas.pool_size} is more than ideas.candidates_per_axis="
            f"{config.ideas.candidates_per_axis}; lower it or propose more"
        )
    if config.sft.wordings > 1 and config.expert.kind == "endpoint":
        raise ConfigError(
            f"sft.wordings={config.sft.wordings}: only the scripted expert's text has other wordings; set "
            "sft.wordings=1"
        )


def _check_grammar(key: str, max_tokens: int, remedy: str) -> None:
    try:
        response_grammar(max_tokens)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}; raise it, or set {remedy}") from None


def check_sizes(model: Model, mesh: Mesh) -> None:
    """Raise ConfigError if the sizes of a network are not divisible as its heads and the mesh require.

    Args:
        model: The section with the stated sizes, or those of the checkpoint; sizes that are None are not checked.
        mesh: The layout of the devices.
    """
    if model.num_heads and model.num_kv_heads and model.num_heads % model.num_kv_heads:
        fits = [str(n) for n in range(1, model.num_heads + 1) if model.num_heads % n == 0]
        raise ConfigError(
            f"model.num_heads={model.num_heads} is not divisible by model.num_kv_heads={model.num_kv_heads}; "
            f"use {' or '.join(fits)}"
        )
    for key, axis in (("num_kv_heads", "tensor"), ("intermediate_size", "tensor"), ("hidden_size", "fsdp")):
        if (getattr(model, key) or 0) % getattr(mesh, axis):
            raise ConfigError(
                f"model.{key}={getattr(model, key)} is not divisible by mesh.{axis}={getattr(mesh, axis)}; "
                f"lower mesh.{axis}"
            )


def missing_sizes(model: Model, vocab_size: int | None) -> list[str]:
    """Return the keys of the sizes of a network that are null."""
    stated = {f"model.{key}": getattr(model, key) for key in SIZES} | {"tokenizer.vocab_size": vocab_size}
    return [key for key, value in stated.items() if value is None]


def _check_scratch(model: Model, tokenizer: Tokenizer) -> None:
    """Raise ConfigError unless a model without a checkpoint has all its sizes, and a head size that vLLM supports."""
    missing = missing_sizes(model, tokenizer.vocab_size)
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: null, expected a value, since model.path=null starts from scratch; set "
            f"{'it' if len(missing) == 1 else 'them'}, or model.path to a checkpoint"
        )
    assert model.hidden_size and model.num_heads
    head_size = model.hidden_size / model.num_heads
    if head_size not in HEAD_SIZES:
        near = min(HEAD_SIZES, key=lambda size: abs(size - head_size))
        raise ConfigError(
            f"model.hidden_size={model.hidden_size} gives model.num_heads={model.num_heads} heads of size "
            f"{head_size:g}, which vLLM does not serve everywhere; use model.hidden_size={near * model.num_heads}"
        )


def _check_batches(config: Config) -> None:
    ppo, devices = config.ppo, config.mesh.data * config.mesh.fsdp
    if (config.sft.rows_per_micro_batch or 0) % devices:
        raise ConfigError(_indivisible("sft.rows_per_micro_batch", config.sft.rows_per_micro_batch or 0, devices))
    if ppo.rows_per_micro_batch % devices:
        raise ConfigError(_indivisible("ppo.rows_per_micro_batch", ppo.rows_per_micro_batch, devices))
    context = config.mesh.context
    for key, length in (("sft.max_length", config.sft.max_length), ("ppo.row_length", ppo.row_length)):
        if length % context:
            raise ConfigError(
                f"{key}={length} is not divisible by mesh.context={context}, the number of shards of a row; "
                f"use {_above(length, context)}"
            )
    if ppo.row_length < config.server.max_model_len:
        raise ConfigError(
            f"ppo.row_length={ppo.row_length} is shorter than server.max_model_len={config.server.max_model_len}; "
            "a state and its response must fit in a row; make it at least as long"
        )
    if ppo.max_response_tokens > ppo.num_predictions:
        raise ConfigError(
            f"ppo.max_response_tokens={ppo.max_response_tokens} is more than the {ppo.num_predictions} predictions of "
            f"a row; set ppo.predictions_per_row={ppo.max_response_tokens} or more"
        )


def _check_moments(config: Config) -> None:
    """Refuse a mean of squared gradients that would stand still: bfloat16 rounds away changes below 2^-8."""
    if config.optimizer_state.dtype == "bfloat16":
        for key, b2 in (("sft.adam_b2", config.sft.adam_b2), ("ppo.adam_b2", config.ppo.adam_b2)):
            if 1 - b2 < 2**-8:
                raise ConfigError(
                    f"{key}={b2:g} decays by less per step than optimizer_state.dtype=bfloat16 can hold, 2^-8; set "
                    f"{key}=0.99 or less, or optimizer_state.dtype=float32"
                )


def _check_credit(ppo: PPO) -> None:
    if ppo.advantage not in ("gae", "batch") and ppo.samples_per_state == 1:
        raise ConfigError(
            f"ppo.advantage={ppo.advantage} compares a state's samples; set ppo.samples_per_state to 2 or more, or "
            "ppo.advantage=batch"
        )
    if ppo.advantage != "gae" and (ppo.gamma, ppo.lam) != (1.0, 1.0):
        raise ConfigError(
            f"ppo.gamma={ppo.gamma:g} and ppo.lam={ppo.lam:g}: ppo.advantage={ppo.advantage} needs undiscounted "
            "returns; set both to 1"
        )
    if ppo.kl_in == "loss" and ppo.kl_estimator == "k1":
        raise ConfigError("ppo.kl_in=loss with ppo.kl_estimator=k1 has no gradient on average; use ppo.kl_estimator=k2")
    if ppo.max_staleness and ppo.importance_limit is None:
        raise ConfigError(
            f"ppo.max_staleness={ppo.max_staleness} trains on actions of older weights, which "
            "ppo.importance_limit=null does not correct for; set ppo.importance_limit=2.0"
        )
    if ppo.episodes and (ppo.states_per_trajectory, ppo.states) != (1, "expert"):
        raise ConfigError(
            "ppo.episodes=true starts at the beginning of trajectories; set ppo.states_per_trajectory=1, not "
            f"{ppo.states_per_trajectory}, and ppo.states=expert, not {ppo.states}"
        )
    if ppo.critic == "shared" and ppo.advantage != "gae":
        raise ConfigError(f"ppo.critic=shared: ppo.advantage={ppo.advantage} has no critic; use ppo.advantage=gae")
    if ppo.critic == "shared" and ppo.critic_warmup_updates:
        raise ConfigError(
            "ppo.critic=shared cannot train before the policy; set ppo.critic_warmup_updates=0, "
            f"not {ppo.critic_warmup_updates}"
        )


def _indivisible(key: str, value: int, devices: int) -> str:
    remedy = f"use {_above(value, devices)}"
    return f"{key}={value} is not divisible by the {devices} devices of mesh axes (data, fsdp); {remedy}"


def _above(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
