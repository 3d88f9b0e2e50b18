"""The command `mlagent evaluate`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.agents.endpoint import is_address
from mlagent_jax.evaluating.options import BUILT_IN, CODER, SUITES, AgentSpec, EvaluateOptions, read_agents, read_tasks
from mlagent_jax.evaluating.page import headline
from mlagent_jax.evaluating.run import evaluate_agents
from mlagent_jax.reporting.page import gain_text
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.train import INFRASTRUCTURE_ERROR, INTERRUPTED, USER_ERROR, signals_as_interrupts
from rollout.errors import InfrastructureError
from tasks.error_line import error_line
from tasks.quoting import user_path

PAIRS = ("model", "key-env", "price")  # options that are given as AGENT=VALUE
DESCRIPTION = f"""\
Evaluate agents on tasks. The same command goes on with what is not done.

  {{prog}} --agents sft=runs/quickstart/sft ppo=runs/quickstart/export initial random --tasks quickstart
  {{prog}} --agents gpt=https://api.openai.com/v1 --model gpt=gpt-4o --key-env gpt=OPENAI_API_KEY --tasks house_price

agents: NAME=WHERE, or WHERE alone. WHERE is {", ".join(BUILT_IN)}, a run, a directory of a policy, or
the address of an endpoint. tasks: names, or {", ".join(SUITES)}.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.evaluate") -> int:
    """Run the command line and return its exit code: 0, 2 for invalid input, 3 for failures, 130 if interrupted."""
    parsed = parse(arguments, prog)
    try:
        with signals_as_interrupts():
            result = evaluate_agents(read_options(parsed), Reporter())
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except InfrastructureError as error:
        print(f"error: {error_line(error)}; details in {parsed.out / 'log.txt'}", file=sys.stderr)
        return INFRASTRUCTURE_ERROR
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    print(summary(result, parsed.out))
    return INFRASTRUCTURE_ERROR if result["failures"] else 0


def summary(result: Mapping[str, Any], out: Path) -> str:
    """Return what the command prints at its end."""
    agents = result["agents"]
    order = list(agents)
    width = max(map(len, order), default=0)
    lines = []
    for name in order:
        gain, best = agents[name]["all"]["gain"], agents[name]["all"]["best_gain"]
        mean, low, high, top = map(gain_text, (gain["mean"], gain["low"], gain["high"], best["mean"]))
        lines.append(f"{name:{width}}  gain {mean} ({low} to {high}), best of {result['options']['k']} {top}")
    lines += [f"{name} was not evaluated: {why}" for name, why in result["failures"].items()]
    return "\n".join([*lines, headline(result, order), f"report: {out / 'report.html'}"])


def read_options(parsed: argparse.Namespace) -> EvaluateOptions:
    """Return the options of a command line; raises ValueError if they are wrong."""
    models, keys, prices = (_pairs(f"--{name}", getattr(parsed, name.replace("-", "_"))) for name in PAIRS)
    paths = tuple(parsed.path or ())
    coder = AgentSpec(CODER, "scripted")
    if parsed.coder != "scripted":
        if not is_address(parsed.coder) and not user_path(parsed.coder).is_dir():
            raise ValueError(f"--coder is {parsed.coder}; expected scripted, a directory of a model, or an address")
        (coder,) = read_agents(
            [f"{CODER}={parsed.coder}"],
            *({CODER: each[CODER]} if CODER in each else {} for each in (models, keys, prices)),
        )
    return EvaluateOptions(
        out=parsed.out,
        agents=read_agents(parsed.agents, models, keys, prices),
        tasks=read_tasks(parsed.tasks, paths),
        coder=coder,
        paths=paths,
        raw=parsed.raw,
        k=parsed.k,
        seeds=parsed.seeds,
        steps=parsed.steps,
        minutes=parsed.minutes,
        slots=parsed.slots,
        dollars=parsed.dollars,
    )


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{option} {text}; expected {option} AGENT=VALUE")
        found[name] = value
    return found


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s --agents AGENT ... --tasks TASK ... [OPTION ...]",
        description=DESCRIPTION.format(prog=prog),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=120),
    )
    parser.add_argument("--agents", nargs="+", required=True, metavar="AGENT", help="the agents")
    parser.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="the tasks")
    parser.add_argument(
        "--out",
        type=user_path,
        default=Path("evaluation"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    parser.add_argument(
        "-k", type=int, default=4, help="trajectories of each agent on each task and seed (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=15, help="actions of a trajectory (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="minutes of a trajectory (default: %(default)g)")
    parser.add_argument("--slots", type=int, default=2, help="scripts at a time (default: %(default)s)")
    parser.add_argument(
        "--coder", default="scripted", metavar="WHO", help="scripted, a model's directory or an address"
    )
    parser.add_argument("--model", action="append", metavar="AGENT=MODEL", help="the model at an agent's endpoint")
    parser.add_argument(
        "--key-env", action="append", metavar="AGENT=VARIABLE", help="environment variable with its key"
    )
    parser.add_argument(
        "--price",
        action="append",
        metavar="AGENT=IN,OUT",
        help="its dollars per million tokens; the coder's as coder=...",
    )
    parser.add_argument("--dollars", type=float, help="limit on the cost of each endpoint")
    parser.add_argument("--path", type=user_path, action="append", metavar="DIR", help="a folder of tasks of your own")
    parser.add_argument("--raw", type=user_path, metavar="DIR", help="folder with raw data of the paper's tasks")
    return parser.parse_args(arguments)
