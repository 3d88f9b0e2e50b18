"""The command line: `python -m mlagent_jax.compile --config FILE topology=v5p:4x4x4 [key.sub=value ...] [--json]`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.train import USER_ERROR, Parser

USAGE = "python -m mlagent_jax.compile [--config FILE] topology=NAME [key.sub=value ...] [--json]"
DESCRIPTION = f"""\
usage: {USAGE}

Compiles the steps of fine-tuning and PPO that a configuration trains with, by the real TPU compiler and without a TPU,
and says what each takes of a chip: memory, FLOPs, bytes between chips, and the time and utilisation that follow from
them (mlagent_jax.aot.roofline has the formula). `make tpu-compiler` installs the compiler.

topology=NAME   the slice, such as v5p:4x4x4, v5e:16x16 or v6e:4x4; the mesh must have as many devices
--json          the figures as JSON, in bytes, FLOPs and seconds

Ends with 0 if every program fits, 4 if one does not, 2 for an input to mend.
"""
DOES_NOT_FIT = 4


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, str, bool]:
    """Return the configuration, the topology, and whether JSON is wanted.

    Raises:
        ConfigError: for a command line or a configuration that does not make sense.
        OSError: if the configuration file cannot be read.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*")
    parsed = parser.parse_intermixed_args(arguments)
    topologies = [each.removeprefix("topology=") for each in parsed.settings if each.startswith("topology=")]
    if len(topologies) != 1:
        raise ConfigError(f"got {len(topologies)} topologies, expected one; give it as topology=v5p:4x4x4")
    overrides = [each for each in parsed.settings if not each.startswith("topology=")]
    return load_config(parsed.config, overrides), topologies[0], parsed.json


def figures(config: Config, topology: str) -> dict[str, Any]:
    """Return the figures of every program of a configuration on a slice, as plain values.

    Raises:
        ConfigError: if the compiler is not installed, or mesh and slice do not go together.
    """
    from mlagent_jax.aot.programs import ppo_programs, sft_programs
    from mlagent_jax.aot.report import report
    from mlagent_jax.aot.topology import chip_of, find_compiler, topology_mesh

    chip = chip_of(topology)
    find_compiler()
    mesh = topology_mesh(config, topology)
    reports = [
        report(program, chip, mesh.size, config.model.remat)
        for programs in (sft_programs, ppo_programs)
        for program in programs(config, mesh)
    ]
    return {
        "topology": topology,
        "chip": asdict(chip),
        "mesh": dict(mesh.shape),
        "programs": [asdict(report) for report in reports],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and returns its exit code: 0, 2 (input to mend), 4 (a program does not fit)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h"} & set(arguments):
        print(DESCRIPTION)
        return 0
    try:
        config, topology, as_json = parse_arguments(arguments)
        found = figures(config, topology)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return USER_ERROR
    except ConfigError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        from mlagent_jax.aot.table import table

        print(table(found))
    remedies = [
        f"{each['program']} {each['verdict']}; {each['remedy']}" for each in found["programs"] if each["remedy"]
    ]
    for line in remedies:
        print(f"error: {line}", file=sys.stderr)
    return DOES_NOT_FIT if remedies else 0


if __name__ == "__main__":
    sys.exit(main())
