"""The command `mlagent solve`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mlagent_jax.solving.options import SEARCHES, SolveLayout, SolveOptions, option_of
from mlagent_jax.solving.page import headline
from mlagent_jax.solving.result import SolveResult
from mlagent_jax.solving.run import dry_run, solve_problem
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.train import INFRASTRUCTURE_ERROR, INTERRUPTED, USER_ERROR, signals_as_interrupts
from rollout.errors import InfrastructureError
from rollout.task_tools.from_table.raw_table import TableFormat
from tasks.error_line import error_line
from tasks.quoting import user_path

DESCRIPTION = """\
Let an agent improve a script on your own data, and measure the result on rows that it never saw.

  {prog} --csv flats.csv --target price
  {prog} --csv train.csv --test test.csv --target y --metric accuracy --minutes 10
--sep --decimal --encoding --na --words --sheet --python are as for `mlagent tasks new`.
"""
MAY_CHANGE = {"out", "test", "steps", "trajectories", "minutes", "slots", "search"}  # of a search that goes on
FORM = ("sep", "decimal", "encoding", "na", "words", "sheet")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.solve") -> int:
    """Run the command line and return its exit code: 0, 2 for invalid input, 3 for failures, 130 if interrupted."""
    parsed = parse(arguments, prog)
    reporter = Reporter()
    try:
        with signals_as_interrupts():
            options = read_options(parsed)
            if parsed.dry_run:
                print(dry_run(options))
                return 0
            result = solve_problem(options, reporter, parsed.resume)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with {prog} --resume --out {parsed.out or 'DIR'}", file=sys.stderr)
        return INTERRUPTED
    except InfrastructureError as error:
        print(f"error: {error_line(error)}; details in work/log.txt", file=sys.stderr)
        return INFRASTRUCTURE_ERROR
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    print(summary(result))
    return {"interrupted": INTERRUPTED, "failed": INFRASTRUCTURE_ERROR}.get(result.end, 0)


def summary(result: SolveResult) -> str:
    """Return what the command prints at its end."""
    lines = [headline(result)]
    if result.optimism is not None and result.optimism > 0:
        lines.append(f"The agent's own estimate was too good by {result.optimism:.3g}.")
    lines += [
        *result.notes,
        f"{result.best}: {', '.join(result.files)}",
        f"report: {result.best.parent / 'report.html'}",
    ]
    return "\n".join(lines)


def read_options(parsed: argparse.Namespace) -> SolveOptions:
    """Return the options of a command line; with `--resume`, those of the search, except for what is stated again.

    Raises:
        ValueError: If the options are wrong, or there is no search to resume.
    """
    stated = {
        name: value
        for name, value in vars(parsed).items()
        if value is not None and name not in ("resume", "dry_run", *FORM)
    }
    stated |= {name: tuple(stated[name]) for name in ("price", "coder_price") if name in stated}
    form = {name: getattr(parsed, name) for name in FORM if getattr(parsed, name)}
    if form:
        stated["form"] = TableFormat(
            parsed.sep,
            parsed.decimal,
            parsed.encoding,
            frozenset(map(str.strip, parsed.na or ())),
            frozenset(map(str.strip, parsed.words or ())),
            parsed.sheet,
        )
    if parsed.resume:
        return _resumed(parsed, stated)
    file = parsed.csv or parsed.script
    name = file.name.split(".")[0] if file else Path(parsed.task or "").name
    return SolveOptions(**{"out": Path("solved") / name, **stated})


def _resumed(parsed: argparse.Namespace, stated: dict[str, object]) -> SolveOptions:
    if parsed.out is None:
        raise ValueError("--resume needs --out, the folder of the search")
    layout = SolveLayout(parsed.out)
    try:
        before = TypeAdapter(SolveOptions).validate_json(layout.options.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"there is no search in {parsed.out}; start one without --resume") from None
    except ValidationError:
        raise ValueError(f"{layout.options} is damaged; start the search again in another --out") from None
    given = replace(before, **stated).absolute()
    fixed = set(stated) - MAY_CHANGE
    changed = sorted(name for name in fixed if getattr(given, name) != getattr(before, name))
    if changed:
        option = "sep and the like" if changed[0] == "form" else option_of(changed[0])
        raise ValueError(f"--resume goes on with what the search began with; leave --{option} out, or start another")
    return replace(before, **stated)


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """Return the parsed command line; options that are not stated are None."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s (--csv FILE --target COLUMN | --task NAME | --script FILE --score LINE) ...",
        description=DESCRIPTION.format(prog=prog),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=120),
        add_help=False,
    )
    default = {each.name: each.default for each in fields(SolveOptions)}
    data = parser.add_argument_group("what to solve")
    data.add_argument("--csv", type=user_path, metavar="FILE", help="your table: CSV, Parquet, Feather, Excel or JSON")
    data.add_argument("--target", metavar="COLUMN", help="the column to predict")
    data.add_argument("--test", type=user_path, metavar="FILE", help="rows to predict at the end")
    data.add_argument(
        "--task", metavar="NAME|DIR", help="a task of the catalog, or a task's folder, instead of a table"
    )
    data.add_argument(
        "--script", type=user_path, metavar="FILE", help="a script of yours; its files: in its folder, or --data DIR"
    )
    data.add_argument("--score", metavar="LINE", help="the line that it prints: 'validation rmse: *'")
    data.add_argument("--data", type=user_path, help=argparse.SUPPRESS)
    data.add_argument("--direction", choices=("maximize", "minimize"), help=argparse.SUPPRESS)
    data.add_argument("--metric", help="the metric, such as rmse or accuracy (default: by the target)")
    data.add_argument("--goal", metavar="TEXT", help="a sentence for the agent")
    data.add_argument("--id", dest="id_column", metavar="COLUMN", help="a column that only numbers the rows")
    data.add_argument("--group", metavar="COLUMN", help="a column, such as a patient, whose rows stay together")
    data.add_argument("--time", metavar="COLUMN", help="a column of times; the latest rows are held out")
    for name in FORM:  # one line of the page for all
        repeatable = {"action": "append"} if name in ("na", "words") else {}
        data.add_argument(f"--{name}", help=argparse.SUPPRESS, **repeatable)  # type: ignore[arg-type]
    who = parser.add_argument_group("who solves it; no model is needed")
    who.add_argument("--agent", metavar="scripted|DIR|URL", help="the agent: a policy's directory, or an endpoint")
    who.add_argument("--coder", metavar="scripted|DIR|URL", help="the writer of edits")
    who.add_argument("--model", metavar="NAME", help="the agent's model at an endpoint")
    who.add_argument("--key-env", metavar="VARIABLE", help="environment variable with its key")
    who.add_argument(
        "--price",
        type=float,
        nargs=2,
        metavar=("IN", "OUT"),
        help="its dollars per million tokens; all three also as --coder-...",
    )
    who.add_argument("--coder-model", help=argparse.SUPPRESS)
    who.add_argument("--coder-key-env", help=argparse.SUPPRESS)
    who.add_argument("--coder-price", type=float, nargs=2, help=argparse.SUPPRESS)
    who.add_argument("--dollars", type=float, help="limit on the cost of all requests")
    who.add_argument("--dry-run", action="store_true", help="print what would be sent to endpoints, and do nothing")
    how = parser.add_argument_group("how long, and where")
    how.add_argument("--out", type=user_path, metavar="DIR", help="folder of the result (default: solved/NAME)")
    how.add_argument("--resume", action="store_true", help="go on with the search in --out, with its options")
    how.add_argument("--minutes", type=float, help=f"time of the whole command (default: {default['minutes']:g})")
    how.add_argument("--steps", type=int, help=f"actions of a trajectory (default: {default['steps']})")
    how.add_argument("--trajectories", type=int, help=f"trajectories (default: {default['trajectories']})")
    how.add_argument("--search", choices=SEARCHES, help=f"which state to act from (default: {default['search']})")
    share = f"share of the rows that the agent does not see (default: {default['holdout']})"
    how.add_argument("--holdout", type=float, metavar="SHARE", help=share)
    how.add_argument("--slots", type=int, help=f"scripts at a time (default: {default['slots']})")
    how.add_argument("--seed", type=int, help=f"seed of all draws (default: {default['seed']})")
    how.add_argument("--python", type=user_path, help=argparse.SUPPRESS)
    parser.add_argument("--help", "-h", action="help", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)
