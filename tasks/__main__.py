"""Tasks: which there are, their data, and your own.

python -m tasks list                              every task, one line each
python -m tasks show house_price                  one task, as an agent gets it
python -m tasks prepare house_price --out DATA    its data, and what its initial script scores
python -m tasks new my_task --csv data.csv --target y --metric rmse
                                                  a task of a table of your own
python -m tasks grade house_price submission.csv --data DATA
python -m tasks validate house_price --data DATA  what can be known to be wrong with it before any model has seen it
python -m tasks micro house_price --rows 100 --out FOLDER --data DATA
                                                  a new task with fewer rows of the same data
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rollout.executor.interpreter import TASK_PYTHON
from rollout.runtime.parent_death import die_with_parent
from rollout.task_tools.preparation import prepare_all
from tasks.entry import Entry
from tasks.grading import grade
from tasks.registry import CATALOG, PAPER, entries, find, load, names

ARROWS = {"maximize": "up", "minimize": "down"}


def main(argv: Sequence[str] | None = None, prog: str = "python -m tasks") -> int:
    """Return the exit status: 0, 1 where a task is not valid, or 2 with one line on standard error."""
    options = parse(argv, prog)
    try:
        if options.command == "list":
            list_tasks(options.path)
        elif options.command == "show":
            show(options.name, options.path)
        elif options.command == "prepare":
            chosen = [find(name, options.path) for name in options.names or names()]
            prepare_all(chosen, options.out, options.python, options.raw, say)
        elif options.command == "validate":
            return validate_all(options)
        elif options.command == "micro":
            micro(options)
        elif options.command == "new":
            new(options)
        else:
            task = load(options.name, options.data, options.path)
            print(grade(task, options.submission.read_bytes()))
    except (ValueError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """Return the command and its options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").replace("python -m tasks", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument(
            "--path", type=Path, action="append", default=[], metavar="DIR", help="folder with tasks of your own"
        )
        return command

    def add_raw(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--raw",
            type=Path,
            metavar="DIR",
            help="files you have already, those of a task in DIR/NAME, raw or of MLE-bench",
        )

    def add_python(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--python",
            type=Path,
            default=TASK_PYTHON,
            help="interpreter of the task environment (default: %(default)s)",
        )

    add("list", "print every task")
    command = add("show", "print what a task states and what an agent gets to read")
    command.add_argument("name", metavar="NAME")
    command = add("prepare", "write the data of tasks, and measure their initial scripts")
    command.add_argument("names", nargs="*", metavar="NAME", help="tasks to prepare (default: the catalog)")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="each task gets a folder of its own here"
    )
    add_raw(command)
    add_python(command)
    command = add("new", "make a task of a table of your own")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--csv", type=Path, required=True, metavar="FILE", help="the table")
    command.add_argument("--target", required=True, metavar="COLUMN", help="the column to be predicted")
    command.add_argument("--metric", required=True, help="how a prediction is scored, such as rmse or accuracy")
    command.add_argument("--id", dest="id_column", metavar="COLUMN", help="a column that names rows and says nothing")
    command.add_argument("--test-share", type=float, default=0.3, help="share of hidden rows (default: %(default)s)")
    command.add_argument(
        "--split", choices=("held_in", "held_out"), default="held_in", help="learnt from, or evaluated only"
    )
    command.add_argument("--best", type=float, help="best score that can be reached (default: of reference scripts)")
    command.add_argument(
        "--out", type=Path, default=Path("my_tasks"), metavar="DIR", help="folder of your tasks (default: %(default)s)"
    )
    add_python(command)
    command = add("grade", "print the score of a submission to a prepared task")
    command.add_argument("name", metavar="NAME")
    command.add_argument("submission", type=Path, metavar="FILE")
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of prepared tasks")
    command = add("validate", "check tasks by oracles, without any model")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--all", action="store_true", help="the catalog's tasks, and those of --path")
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared tasks; others are prepared")
    command.add_argument("--json", action="store_true", help="print a JSON list in place of the table")
    add_raw(command)
    add_python(command)
    command = add("micro", "make a task with fewer rows of another one's data")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--rows", type=int, required=True, metavar="K", help="training rows; five test rows for each, at most"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets the folder NAME_micro")
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared tasks; others are prepared")
    add_raw(command)
    add_python(command)
    return parser.parse_args(argv)


def new(options: argparse.Namespace) -> None:
    """Make a task of the user's table, and says where it is and how it is used."""
    from rollout.task_tools.from_table.new import (  # reads tables by pandas, which nothing else here needs
        NewTaskSpec,
        make_task,
    )

    wish = NewTaskSpec(
        **{key: value for key, value in vars(options).items() if key in NewTaskSpec.__dataclass_fields__}
    )
    folder = make_task(wish, options.python, say)
    print(f"made {folder}, whose files are yours to change; for a run on it: tasks.paths=[{options.out}] ", end="")
    print(f"tasks.{options.split}=[{options.name}]")


def list_tasks(paths: Sequence[Path]) -> None:
    """Print one line for each task, those of one folder together."""
    titles = {CATALOG: "The catalog", PAPER: "The paper's tasks"}
    groups: dict[Path, list[Entry]] = {}
    for entry in entries(paths).values():
        groups.setdefault(entry.folder.parent, []).append(entry)
    for folder, group in groups.items():
        print(titles.get(folder, f"Your own in {folder}"))
        rows = [(e.name, e.split, e.kind, e.metric, ARROWS[e.direction], source(e), e.data) for e in group]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        for row in rows:
            print("  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


def source(entry: Entry) -> str:
    """Return where the data comes from, in a word."""
    if entry.packages:
        return "package"
    return "Kaggle" if entry.kaggle else "download" if entry.downloads else "own files"


def show(name: str, paths: Sequence[Path]) -> None:
    """Print what a task states, its problem and its initial script."""
    entry = find(name, paths)
    for part in ("task.yaml", "problem.md", "train.py"):
        print(f"--- {part}\n{(entry.folder / part).read_text(encoding='utf-8').strip()}")


def validate_all(options: argparse.Namespace) -> int:
    """Print what oracles find out about tasks; returns 0, or 1 where they have something against one."""
    from rollout.task_tools.validation import as_json, table, validate  # pandas, which the other commands do without

    if options.all == bool(options.names):
        raise ValueError(f"validate got {len(options.names)} names{' and --all' * options.all}; name tasks, or --all")
    known = entries(options.path)
    chosen = [find(name, options.path) for name in options.names]
    if options.all:
        chosen = [entry for entry in known.values() if entry.folder.parent != PAPER]
    verdicts = validate(chosen, options.data, options.python, options.raw, lambda line: print(line, file=sys.stderr))
    print(as_json(verdicts) if options.json else table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def micro(options: argparse.Namespace) -> None:
    """Make a task with fewer rows, of another's prepared data."""
    from rollout.task_tools.micro import make_micro  # pandas, which the other commands do without

    parent = find(options.name, options.path)
    if not (options.data / parent.name / "task.json").is_file():
        prepare_all([parent], options.data, options.python, options.raw, say)
    load(parent.name, options.data, options.path)  # or it says why its data are none
    say(f"{make_micro(parent, options.data, options.rows, options.out)}")


def say(line: str) -> None:
    """Print a line at once: whoever waits for the next one is to see it."""
    print(line, flush=True)


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
