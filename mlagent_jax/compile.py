"""The command `compile`: compute the cost of the training steps of a configuration on a TPU slice, without a TPU."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mlagent_jax.configuration.key_help import all_keys
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.train import USER_ERROR, Parser
from tasks.error_line import error_line
from tasks.quoting import user_path

USAGE = "[--config FILE] topology=NAME [key.sub=value ...] [--json]"
DESCRIPTION = """\
Compile the fine-tuning and PPO steps of a configuration with the TPU compiler, without a TPU, and
print what each needs per chip: memory, FLOPs, communication, and the resulting time and utilization
(the formula is in mlagent_jax/aot/roofline.py). `make tpu-compiler` installs the compiler. No weights
are needed, only the config.json at model.path or the sizes in the configuration.

  topology=NAME   slice to compile for, such as v5p:4x4x4, v5e:16x16 or v6e:4x4; the mesh must have
                  as many devices
  --config FILE   YAML file of keys that differ from the defaults (without: configs/quickstart.yaml)
  --help-keys     print all keys with their meanings and defaults
  --json          print the figures as JSON, in bytes, FLOPs and seconds

exit codes: 0 every program fits; 4 a program does not fit; 2 invalid input
"""
DOES_NOT_FIT = 4


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, str, bool]:
    """Return the configuration, the topology, and whether to print JSON.

    Raises:
        ConfigError: If the command line or the configuration is invalid.
        OSError: If the configuration file cannot be read.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=user_path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*")
    parsed = parser.parse_intermixed_args(arguments)
    topologies = [item.removeprefix("topology=") for item in parsed.settings if item.startswith("topology=")]
    if len(topologies) != 1:
        raise ConfigError(f"got {len(topologies)} topologies, expected one; give it as topology=v5p:4x4x4")
    overrides = [item for item in parsed.settings if not item.startswith("topology=")]
    return load_config(parsed.config, overrides), topologies[0], parsed.json


def figures(config: Config, topology: str) -> dict[str, Any]:
    """Return the figures of every program of a configuration on a slice, as JSON values.

    Raises:
        ConfigError: If the compiler is not installed, or the mesh does not fit the slice.
    """
    from mlagent_jax.aot.compiled import report_program
    from mlagent_jax.aot.topology import chip_of, find_compiler, topology_mesh

    chip = chip_of(topology)
    find_compiler()
    mesh = topology_mesh(config.mesh, topology)
    programs = training_programs(config, mesh)
    reports = [report_program(program, chip, mesh.size, config.model.remat) for program in programs]
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
    from mlagent_jax.model.build import abstract_model, planned_config

    sizes = planned_config(config.model, config.tokenizer.vocab_size, config.mesh, config.sft.max_length)
    model = abstract_model(sizes, config.model, mesh)
    programs = sft_programs(model, config.sft, config.optimizer_state, mesh)
    return programs + ppo_programs(model, config.ppo, config.optimizer_state, mesh)


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
