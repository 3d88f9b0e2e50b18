"""The command `compile`: compute the cost of the programs of a configuration on GPUs or a TPU slice, without them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mlagent_jax.configuration.key_help import all_keys
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Adapter, Config, ConfigError
from mlagent_jax.plans import planned_sizes
from mlagent_jax.train import USER_ERROR, Parser
from tasks.error_line import error_line

USAGE = "[--config FILE] topology=NAME [key.sub=value ...] [--json]"
DESCRIPTION = """\
Compile the fine-tuning and PPO programs of a configuration with XLA's compiler for GPUs or TPUs, on
a machine that has none, and print what each needs per chip: memory, FLOPs, communication, and the
resulting time and utilization (the formula is in mlagent_jax/aot/roofline.py). `make gpu-compiler`
and `make tpu-compiler` install the compilers. No weights are needed, only the config.json at
model.path or the sizes in the configuration.

  topology=NAME   chips to compile for: cards of a host, such as h100:8, h200:1, b200:8 or a100:8,
                  cards of two hosts, such as h100:2x8, or a TPU slice, such as v5p:4x4x4, v5e:16x16
                  or v6e:4x4; the mesh must have as many devices
  --config FILE   YAML file of keys that differ from the defaults (without: configs/quickstart.yaml)
  --help-keys     print all keys with their meanings and defaults
  --json          print the figures as JSON, in bytes, FLOPs and seconds

On GPUs, the run's own policy server (server.address=null) counts as sharing one of the cards, unless
server.gpus names others.

exit codes: 0 every program fits; 4 a program does not fit; 2 invalid input
"""
DOES_NOT_FIT = 4


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, str, bool]:
    """Return the configuration, the topology, and whether to print JSON.

    Raises:
        ConfigError: If the command line or the configuration is invalid.
        OSError: If the configuration file cannot be read.
    """
    parser = Parser()
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_intermixed_args(arguments)
    topologies = [item.removeprefix("topology=") for item in parsed.settings if item.startswith("topology=")]
    if len(topologies) != 1:
        raise ConfigError(f"got {len(topologies)} topologies, expected one; give it as topology=h100:8")
    overrides = [item for item in parsed.settings if not item.startswith("topology=")]
    return load_config(parsed.config, overrides), topologies[0], parsed.json


def figures(config: Config, topology: str) -> dict[str, Any]:
    """Return the figures of every program of a configuration on a topology, as JSON values.

    Raises:
        ConfigError: If the compiler is not installed, or the mesh does not fit the topology.
    """
    from mlagent_jax.aot.compiled import report_program
    from mlagent_jax.aot.topology import chip_of, find_compiler, is_gpu, topology_mesh
    from mlagent_jax.gpus.server_memory import memory_beside_trainer

    chip = chip_of(topology)
    find_compiler(topology)
    mesh = topology_mesh(config.mesh, topology)
    server = 0
    if is_gpu(topology):
        server = memory_beside_trainer(
            planned_sizes(config),
            config.server,
            config.trainer,
            mesh.devices.size,
            chip.hbm_bytes,
            config.adapter,
        )
    hosts = [device.process_index for device in mesh.devices.flat]
    programs = training_programs(config, mesh)
    reports = [report_program(program, chip, config.model.remat, hosts, server) for program in programs]
    return {
        "topology": topology,
        "chip": asdict(chip),
        "mesh": dict(mesh.shape),
        "programs": [asdict(report) for report in reports],
    }


def training_programs(config: Config, mesh: Any) -> list[Any]:
    """Return the programs of fine-tuning, then those of PPO, as `mlagent_jax.aot.programs.Program`.

    Args:
        config: The configuration.
        mesh: The `jax.sharding.Mesh` to compile for, whose devices need not exist. Its type is not named here, so that
            `--help` and wrong input do not import JAX.
    """
    from mlagent_jax.aot.programs import ppo_programs, sft_programs

    fine_tuned, policy = (planned_model(config, mesh, adapter) for adapter in (config.sft_adapter, config.adapter))
    programs = sft_programs(fine_tuned, config.sft, config.optimizer_state, mesh)
    return programs + ppo_programs(policy, config.ppo, config.optimizer_state, mesh)


def planned_model(config: Config, mesh: Any, adapter: Adapter) -> Any:
    """Return the policy of a configuration with abstract arrays, on a `jax.sharding.Mesh`, with an adapter or none."""
    from mlagent_jax.model.build import abstract_model

    return abstract_model(planned_sizes(config), config.model, mesh, adapter)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.compile") -> int:
    """Run the command line and return its exit code: 0, 2 (wrong input) or 4 (a program does not fit)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h", "--help-keys"} & set(arguments):
        print(all_keys() if "--help-keys" in arguments else f"usage: {prog} {USAGE}\n\n{DESCRIPTION}")
        return 0
    try:
        config, topology, as_json = parse_arguments(arguments)
        values = figures(config, topology)
    except (ConfigError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    if as_json:
        print(json.dumps(values, indent=1))
    else:
        from mlagent_jax.aot.text_table import text_table

        print(text_table(values))
    remedies = [
        f"{program['program']} {program['verdict']}; {program['remedy']}"
        for program in values["programs"]
        if program["remedy"]
    ]
    for line in remedies:
        print(f"error: {line}", file=sys.stderr)
    return DOES_NOT_FIT if remedies else 0


if __name__ == "__main__":
    sys.exit(main())
