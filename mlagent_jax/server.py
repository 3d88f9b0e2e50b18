"""The command `server`: serve a model directory, or the policy of a run with the settings of its configuration."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.run.policy_server import server_options
from mlagent_jax.train import USER_ERROR, Parser
from rollout.inference import server as rollout_server
from rollout.inference.access import KEY_VARIABLE, key_in
from rollout.inference.description import ServerDescription
from rollout.inference.server import HOST, WEIGHT_BACKEND, ServerOptions
from rollout.inference.vllm_package import installed_version
from rollout.inference.waiting import wait_until
from rollout.storage.digests import has_digests
from rollout.storage.run_layout import RunLayout
from tasks.error_line import error_line

HELP = f"""\
usage: {{prog}} --config FILE [key.sub=value ...] [--host HOST] [--port PORT]
       {{prog}} --model DIR [FLAG ...]

Serve with vLLM. With --config, serve the policy of a run: the fine-tuned one in its run_dir, else the
checkpoint at model.path, with the type, context length, cache and GPUs in the section `server`. A
policy from scratch exists only after the stage sft; until then the server waits, and tells the run so.
Start the run itself with the same configuration and server.address=http://HOST:PORT.

  --config FILE   YAML file of the run's keys; further keys follow as key.sub=value
  --model DIR     Hugging Face directory to serve; `{{prog}} --model DIR --help` prints its flags
  --host HOST     address to listen at (default: {HOST}); 0.0.0.0 for other machines
  --port PORT     port (default: 8000)

The key of the server is the environment variable {KEY_VARIABLE}, the same here and where the run
starts. Without a key it only samples, and only for this machine.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.server") -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if any(word.partition("=")[0] == "--model" for word in arguments):
        return rollout_server.main(arguments, prog)
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP.format(prog=prog))
        return 0
    try:
        config, host, port = parse_arguments(arguments)
        rollout_server.check_access(host, ())
        rollout_server.check_serving(port)
        gpus = ",".join(map(str, config.server.gpus or ()))
        options = server_options(config.server, gpus, max_adapter_rank=config.served_rank)
        model = find_policy(config, options, host, port)
        rollout_server.check_start(model, port)
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    return rollout_server.serve(model.resolve(), port, options, os.getppid(), (), host)


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, str, int]:
    """Return the configuration, the address to listen at, and the port.

    Raises:
        ConfigError: If the command line or the configuration is invalid.
        OSError: If the configuration file cannot be read.
    """
    parser = Parser()
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=8000)
    parsed = parser.parse_intermixed_args(arguments)
    return load_config(parsed.config, parsed.settings), parsed.host, parsed.port or rollout_server.free_port()


def find_policy(config: Config, options: ServerOptions, host: str, port: int) -> Path:
    """Return the directory to serve first; wait for it, and answer meanwhile, if the run has yet to write it.

    Raises:
        ConfigError: If the server is restarted for new weights, which only a run's own server can be.
    """
    if config.server.new_weights == "restart":
        raise ConfigError(
            "server.new_weights=restart needs a server that the run starts itself; set server.new_weights=load, here "
            "and for the run"
        )
    policy = RunLayout(Path(config.run_dir)).sft_policy
    if config.served_base is not None:
        print(f"serving {config.served_base} as it is; the run sends adapters of it", flush=True)
        return Path(config.served_base)
    if not has_digests(policy):
        if config.model.path is not None and not config.served_rank:
            return Path(config.model.path)
        print(f"waiting for {policy}, which the stage sft of the run writes", flush=True)
        wait_until(lambda: has_digests(policy), describe(options, policy), host, port, key_in(KEY_VARIABLE))
    return policy


def describe(options: ServerOptions, policy: Path) -> ServerDescription:
    """Return the description of a server that waits for a policy."""
    values = asdict(options)
    return ServerDescription(
        vllm=installed_version() or "",
        sizes={},
        weight_backend=WEIGHT_BACKEND if key_in(KEY_VARIABLE) else None,
        waits_for=str(policy),
        **{name: values[name] for name in ("dtype", "max_model_len", "tensor_parallel", "data_parallel")},
        max_adapter_rank=options.max_adapter_rank,
    )


if __name__ == "__main__":
    sys.exit(main())
