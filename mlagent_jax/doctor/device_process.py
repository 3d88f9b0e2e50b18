"""The process of the checks that use devices, which `process.py` starts."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config
from mlagent_jax.doctor.finding import examine
from mlagent_jax.doctor.process import NEEDED
from mlagent_jax.gpus import environment
from mlagent_jax.gpus.assignment import NO_GPUS, Assignment
from mlagent_jax.multihost import distributed
from mlagent_jax.plans import memory_plan, planned_sizes, reserve_host_memory
from mlagent_jax.platform import cpu, tpu
from mlagent_jax.train import Parser
from rollout.runtime.parent_death import die_with_parent
from rollout.runtime.signals import raise_from_handler


class Arguments(NamedTuple):
    """The configuration of the run to come, and whether to print JSON."""

    config: Config
    as_json: bool


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Return the parsed command line of doctor.

    Raises:
        ConfigError: If the command line or the configuration is invalid.
        OSError: If the configuration file cannot be read.
    """
    parser = Parser()
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_intermixed_args(arguments)
    return Arguments(load_config(parsed.config, parsed.settings), parsed.json)


class Checks:
    """The checks of devices, in their order; the first one leaves what the later ones need.

    JAX is imported by the first one, when its share of the devices is set.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.assignment: Assignment = NO_GPUS

    def devices(self) -> str:
        """Divide the GPUs between trainer and server, and find the devices of the mesh."""
        config = self.config
        self.assignment = environment.prepare(config.trainer, config.server, config.mesh, config.executor)
        reserve_host_memory(config)
        cpu.prepare()
        tpu.prepare()
        distributed.initialize()
        from mlagent_jax.doctor import devices

        self.mesh = devices.open_mesh(self.config, self.assignment)
        return devices.describe(self.mesh)

    def memory(self) -> str:
        """Return the plan of the GPUs' memory."""
        if not self.assignment.trainer and not self.assignment.server:
            return "no GPU whose memory is divided"
        plan = memory_plan(self.config, planned_sizes(self.config), self.assignment)
        return "; ".join([*plan.lines, *(f"warning: {text}" for text in plan.warnings)])

    def all_reduce(self) -> str:
        """Sum over all devices."""
        from mlagent_jax.doctor import devices

        return devices.all_reduce(self.mesh)

    def attention(self) -> str:
        """Compare the kernels with the formulas."""
        from mlagent_jax.doctor import devices

        return devices.compare_attention()

    def fine_tuning(self) -> str:
        """Take a few steps."""
        from mlagent_jax.doctor import devices

        return devices.fine_tune(self.config, self.mesh)

    def server(self) -> str:
        """Start the policy server."""
        from mlagent_jax.doctor.serving import check_serving

        return check_serving(self.config, self.mesh, self.assignment)


def main(arguments: Sequence[str]) -> None:
    """Run the checks that the first argument names, and write their findings to standard output."""
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: raise_from_handler(KeyboardInterrupt()))  # so that the server is stopped
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no finding
    names, *rest = arguments
    checks = Checks(parse_arguments(rest).config)
    for name in names.split(","):
        finding = examine(name, getattr(checks, name.replace("-", "_")))
        print(json.dumps(asdict(finding)), file=out, flush=True)
        if not finding.passed and name == NEEDED:
            break
    distributed.leave(0)


if __name__ == "__main__":
    main(sys.argv[1:])
