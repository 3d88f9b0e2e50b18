"""The command `doctor`: check a machine before the first run on it."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from mlagent_jax.configuration.key_help import all_keys
from mlagent_jax.configuration.schema import Config
from mlagent_jax.doctor.device_process import parse_arguments
from mlagent_jax.doctor.finding import Finding, examine
from mlagent_jax.doctor.machine import find_gpus, find_versions, run_in_sandbox
from mlagent_jax.doctor.process import SECONDS, findings_of_devices
from mlagent_jax.train import INTERRUPTED, USER_ERROR, signals_as_interrupts
from tasks.error_line import error_line

HELP = """\
usage: {prog} [--config FILE] [key.sub=value ...] [--json]

Check this machine for the run that a configuration describes, in one to three minutes. Each line says
pass and what was found, or FAIL and what to do:

  versions      Python and the libraries
  gpus          GPUs and their driver, for which JAX and vLLM must be built
  sandbox       one script in the sandbox of the agent's scripts
  devices       the devices of the mesh
  memory        what lies where in the memory of the GPUs
  all-reduce    a sum over all of them
  attention     values and gradients of this device's kernels against the formulas
  fine-tuning   steps of a tiny network
  server        vLLM starts, takes new weights, and computes the trainer's log-probabilities

The configuration is that of the run to come, whose mesh, types and GPUs are used, with a tiny network in
place of its own. If a run has several processes, start this command the same way, and again on one host
alone for the server.

  --config FILE   YAML file of the run's keys; further keys follow as key.sub=value
  --help-keys     print all keys with their meanings and defaults
  --json          print each finding as a line of JSON

exit codes: 0 every check passed; 1 a check failed; 2 invalid input; 130 interrupted"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.doctor") -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"--help", "-h", "--help-keys"} & set(arguments):
        print(all_keys() if "--help-keys" in arguments else HELP.format(prog=prog))
        return 0
    try:
        config, as_json = parse_arguments(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    began, findings = time.monotonic(), []
    try:
        with signals_as_interrupts():
            for finding in check_machine(config, [word for word in arguments if word != "--json"]):
                findings.append(finding)
                print(json.dumps(asdict(finding)) if as_json else finding, flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    num_failed = sum(not finding.passed for finding in findings)
    if not as_json:
        outcome = f"{num_failed} of {len(findings)} checks failed" if num_failed else f"{len(findings)} checks passed"
        print(f"{outcome} in {time.monotonic() - began:.0f} s")
    return int(num_failed > 0)


def check_machine(config: Config, arguments: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings of all checks.

    Args:
        config: The configuration of the run to come.
        arguments: The command line that states it.
    """
    for name, check in (("versions", find_versions), ("gpus", find_gpus), ("sandbox", run_in_sandbox)):
        yield examine(name, partial(check, config))
    yield from findings_of_devices(arguments, server_seconds=config.server.start_timeout_seconds + SECONDS)


if __name__ == "__main__":
    sys.exit(main())
