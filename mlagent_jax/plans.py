"""Plans that follow from the whole configuration: the sizes of the policy, and who gets which memory.

Nothing here imports JAX.
"""

from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.gpus.assignment import Assignment
from mlagent_jax.gpus.plan import Plan, make_plan
from mlagent_jax.gpus.server_memory import serving
from mlagent_jax.gpus.training_memory import fine_tuning, ppo_learning
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.sizes import planned_config
from mlagent_jax.run import host_memory


def planned_sizes(config: Config) -> TransformerConfig:
    """Return the sizes of the policy of a configuration.

    Raises:
        ConfigError: If they are not known, or contradict those of the checkpoint.
    """
    return planned_config(config.model, config.tokenizer.vocab_size, config.mesh, config.sft.max_length)


def memory_plan(config: Config, network: TransformerConfig, assignment: Assignment) -> Plan:
    """Return the plan of the memory of at least one GPU for a policy of the sizes `network`.

    Raises:
        ConfigError: If it cannot fit.
    """
    state = config.optimizer_state, config.mesh
    needs = [
        fine_tuning(network, config.model, config.sft_adapter, config.sft, *state),
        ppo_learning(network, config.model, config.adapter, config.ppo, *state),
    ]
    return make_plan(assignment, needs, serving(network, config.server, config.adapter), config.server)


def reserve_host_memory(config: Config) -> None:
    """Let JAX keep offloaded moments in host memory; call this before JAX looks for devices.

    Raises:
        ConfigError: If that memory is not there.
    """
    if not config.optimizer_state.offload:
        return
    try:
        network = planned_sizes(config)
    except ConfigError:  # a fatal one for fine-tuning, which says so, but not for later stages
        return
    dtype, has_critic = config.optimizer_state.dtype, config.ppo.has_own_critic
    of_sft = host_memory.moment_bytes(network, config.sft_adapter, dtype, False)
    of_ppo = host_memory.moment_bytes(network, config.adapter, dtype, has_critic)
    host_memory.reserve(max(of_sft, of_ppo))
