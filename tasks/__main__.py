"""List, prepare, create, grade and validate tasks.

python -m tasks list                              list every task
python -m tasks show house_price                  show one task as an agent reads it
python -m tasks prepare house_price --out DATA    write its data and measure its initial script
python -m tasks new my_task --csv data.csv --target y --metric rmse
                                                  create a task from your own table
python -m tasks grade house_price submission.csv --data DATA
                                                  print the score of a submission
python -m tasks validate house_price --data DATA  check a task without any model
python -m tasks export house_price --to harbor --out FOLDER --data DATA
                                                  write a task for another framework
python -m tasks micro house_price --rows 100 --out FOLDER --data DATA
                                                  create a task with fewer rows of the same data
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rollout.executor.interpreter import TASK_PYTHON
from rollout.runtime.parent_death import die_with_parent
from rollout.task_tools.preparation import prepare_all
from tasks.entry import Entry
from tasks.error_line import error_line
from tasks.grading import grade
from tasks.quoting import setting, user_path
from tasks.registry import CATALOG, PAPER, entries, find, load, load_entry, names

ARROWS = {"maximize": "up", "minimize": "down"}


def main(argv: Sequence[str] | None = None, prog: str = "python -m tasks") -> int:
    """Return the exit status: 0, 1 if a task is not valid, or 2 after one line on standard error."""
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
        elif options.command == "export":
            export(options)
        else:
            task = load(options.name, options.data, options.path)
            print(grade(task, options.submission.read_bytes()))
    except (ValueError, OSError) as error:
        print(f"{prog}: {error_line(error)}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """Return the parsed command and options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").replace("python -m tasks", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument(
            "--path", type=user_path, action="append", default=[], metavar="DIR", help="folder with tasks of your own"
        )
        return command

    def add_raw(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--raw",
            type=user_path,
            metavar="DIR",
            help="files that you already have, a task's in DIR/NAME, raw or prepared by MLE-bench",
        )

    def add_python(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--python",
            type=user_path,
            default=TASK_PYTHON,
            help="interpreter of the task environment (default: %(default)s)",
        )

    add("list", "list every task")
    command = add("show", "print a task's description, problem and initial script")
    command.add_argument("name", metavar="NAME")
    command = add("prepare", "write the data of tasks, and measure their initial scripts")
    command.add_argument("names", nargs="*", metavar="NAME", help="tasks to prepare (default: the catalog)")
    command.add_argument("--out", type=user_path, required=True, metavar="DIR", help="a task's data goes to DIR/NAME")
    add_raw(command)
    add_python(command)
    command = add("new", "create a task from your own table")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--csv",
        type=user_path,
        required=True,
        metavar="FILE",
        help="the table: CSV or similar text, Parquet, Feather, Excel or JSON lines, also compressed",
    )
    command.add_argument("--sheet", metavar="NAME", help="sheet of an Excel workbook (default: the only one)")
    command.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
    command.add_argument("--metric", help="the metric, such as rmse or accuracy (default: by the target)")
    command.add_argument("--sep", metavar="CHAR", help="separator of the columns, or tab (default: found)")
    command.add_argument("--decimal", metavar="MARK", help="decimal mark, . or , (default: found)")
    command.add_argument("--encoding", metavar="NAME", help="encoding, such as cp1252 (default: UTF-8, or its mark)")
    command.add_argument(
        "--na", action="append", default=[], metavar="TEXT", help="a cell that means a missing value; repeatable"
    )
    command.add_argument(
        "--words", action="append", default=[], metavar="COLUMN", help="a column of words or codes; repeatable"
    )
    command.add_argument("--id", dest="id_column", metavar="COLUMN", help="a column that only numbers the rows")
    command.add_argument(
        "--group", metavar="COLUMN", help="a column, such as a patient, whose rows must stay on one side of the split"
    )
    command.add_argument(
        "--time",
        metavar="COLUMN",
        help="a column of dates, times or numbers, by which the latest rows are hidden",
    )
    command.add_argument("--test-share", type=float, metavar="SHARE", help="share of hidden rows (default: 0.3)")
    command.add_argument(
        "--test", type=user_path, metavar="FILE", help="hidden rows of your own, with the target (default: drawn)"
    )
    command.add_argument(
        "--split", choices=("held_in", "held_out"), default="held_in", help="train on the task, or only evaluate on it"
    )
    command.add_argument("--best", type=float, help="best achievable score (default: the best of reference scripts)")
    command.add_argument(
        "--out",
        type=user_path,
        default=Path("my_tasks"),
        metavar="DIR",
        help="folder of your tasks (default: %(default)s)",
    )
    add_python(command)
    command = add("grade", "print the hidden score of a submission to a prepared task")
    command.add_argument("name", metavar="NAME")
    command.add_argument("submission", type=user_path, metavar="FILE")
    command.add_argument("--data", type=user_path, required=True, metavar="DIR", help="folder of prepared tasks")
    command = add("validate", "check tasks with oracles, without any model")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--all", action="store_true", help="check the catalog's tasks and those of --path")
    command.add_argument(
        "--data", type=user_path, required=True, metavar="DIR", help="prepared tasks; missing ones are prepared here"
    )
    command.add_argument(
        "--max-known",
        type=float,
        default=0.05,  # `MAX_KNOWN` of `rollout.task_tools.groups`, which needs pandas
        metavar="SHARE",
        help="share of test rows of which a copy, or the group, may be in the training data (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print a JSON list instead of the table")
    add_raw(command)
    add_python(command)
    command = add("export", "write tasks in the format of another framework")
    command.add_argument("names", nargs="+", metavar="NAME")
    command.add_argument("--to", choices=("harbor",), required=True, help="the format")
    command.add_argument("--out", type=user_path, required=True, metavar="DIR", help="a task goes to DIR/NAME")
    command.add_argument(
        "--data", type=user_path, required=True, metavar="DIR", help="prepared tasks; missing ones are prepared here"
    )
    add_raw(command)
    add_python(command)
    command = add("micro", "create a task with fewer rows of another task's data")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--rows", type=int, required=True, metavar="K", help="number of training rows; at most five times as many test"
    )
    command.add_argument(
        "--out", type=user_path, required=True, metavar="DIR", help="the new task goes to DIR/NAME_micro"
    )
    command.add_argument(
        "--data", type=user_path, required=True, metavar="DIR", help="prepared tasks; missing ones are prepared here"
    )
    add_raw(command)
    add_python(command)
    return parser.parse_args(argv)


def new(options: argparse.Namespace) -> None:
    """Create a task from the user's table, and print where it is and how to use it."""
    # Imported here because it needs pandas, which most commands do not.
    from rollout.scripted.reference_scripts import reference_scripts
    from rollout.task_tools.from_table.create import make_task
    from rollout.task_tools.from_table.folder import NewTaskSpec
    from rollout.task_tools.from_table.raw_table import TableFormat

    form = TableFormat(
        options.sep,
        options.decimal,
        options.encoding,
        frozenset(map(str.strip, options.na)),
        frozenset(map(str.strip, options.words)),
        options.sheet,
    )
    stated = {key: value for key, value in vars(options).items() if key in NewTaskSpec.__dataclass_fields__}
    spec = NewTaskSpec(**stated, form=form)
    folder = make_task(spec, options.python, reference_scripts, say)
    print(f"made {folder}, whose files you may edit; to train on it: ", end="")
    print(setting("tasks.paths", [str(options.out)]), setting(f"tasks.{options.split}", [options.name]))


def list_tasks(paths: Sequence[Path]) -> None:
    """Print one line for each task, grouped by folder."""
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
    """Return the kind of source that the data comes from."""
    if entry.packages:
        return "package"
    return "Kaggle" if entry.kaggle else "download" if entry.downloads else "own files"


def show(name: str, paths: Sequence[Path]) -> None:
    """Print a task's description, problem and initial script."""
    entry = find(name, paths)
    for part in ("task.yaml", "problem.md", "train.py"):
        print(f"--- {part}\n{(entry.folder / part).read_text(encoding='utf-8').strip()}")


def validate_all(options: argparse.Namespace) -> int:
    """Print the verdicts of the oracles on tasks, and return 0 if all tasks pass, else 1."""
    from rollout.task_tools.validation import as_json, table, validate  # here, because it needs pandas

    if options.all == bool(options.names):
        raise ValueError(
            f"validate got {len(options.names)} names{' and --all' * options.all}; expected names of tasks or --all"
        )
    known = entries(options.path)
    chosen = [find(name, options.path) for name in options.names]
    if options.all:
        chosen = [entry for entry in known.values() if entry.folder.parent != PAPER]
    if not 0 <= options.max_known <= 1:
        raise ValueError(f"--max-known is {options.max_known}; expected a share between 0 and 1")
    verdicts = validate(
        chosen, options.data, options.python, options.raw, lambda line: print(line, file=sys.stderr), options.max_known
    )
    print(as_json(verdicts) if options.json else table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def micro(options: argparse.Namespace) -> None:
    """Create a task with fewer rows of another task's prepared data."""
    from rollout.task_tools.micro import make_micro  # here, because it needs pandas

    parent = find(options.name, options.path)
    if not (options.data / parent.name / "task.json").is_file():
        prepare_all([parent], options.data, options.python, options.raw, say)
    load(parent.name, options.data, options.path)  # raises if the data is damaged
    say(f"{make_micro(parent, options.data, options.rows, options.out)}")


def export(options: argparse.Namespace) -> None:
    """Write tasks in the format of another framework."""
    from rollout.task_tools.harbor import export_harbor

    for entry in [find(name, options.path) for name in options.names]:
        prepare_all([entry], options.data, options.python, options.raw, say)
        say(f"{export_harbor(load_entry(entry, options.data), entry, options.out, options.python)}")


def say(line: str) -> None:
    """Print a line without buffering, so that progress is visible at once."""
    print(line, flush=True)


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
