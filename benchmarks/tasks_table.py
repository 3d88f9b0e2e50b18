"""Write the tables of the bundled tasks into the documentation, from their folders and the measurements of `prepare`.

    python -m tasks prepare --out DATA
    python -m benchmarks.tasks_table DATA

Prints the tables. They go between the marker lines of docs/reference/tasks.md; the rest of the page stays.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.entry import Entry
from tasks.quoting import user_path
from tasks.registry import find, load, names
from tasks.task import Task

DOCUMENT = Path(__file__).parents[1] / "docs/reference/tasks.md"
BEGIN, END = "<!-- begin: python -m benchmarks.tasks_table DATA -->", "<!-- end -->"
STANDS_IN, BY_SEARCH = "; stands in for ", "benchmarks/m_best.py: "  # phrases in the texts of a task.yaml


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    options = parser.parse_args(argv)
    try:
        tasks = [load(name, options.data) for name in (*names("held_in"), *names("held_out"))]
        text = f"{data_table([find(task.name) for task in tasks])}\n{score_table(tasks)}"
        DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), text), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"benchmarks/tasks_table.py: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


def data_table(entries: Sequence[Entry]) -> str:
    """Return the data of the tasks, as Markdown."""
    rows = ["| task | split | kind | data and terms | stands in for |", "|---|---|---|---|---|"]
    for entry in entries:
        data, _, stands_in = entry.data.partition(STANDS_IN)
        rows.append(f"| `{entry.name}` | {entry.split} | {entry.kind} | {data} | {stands_in or '–'} |")
    return "\n".join(rows) + "\n"


def score_table(tasks: Sequence[Task]) -> str:
    """Return the sizes and scores of prepared tasks, as Markdown.

    The headroom is |m_best - m_init| in units of the noise.
    """
    rows = [
        "| task | rows, train / test | metric | m_init | m_best | what reached m_best | noise | headroom |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        train, test = (num_rows(task.public / name) for name in ("train.csv", "test.csv"))
        headroom = f"{abs(task.m_best - task.m_init) / task.noise:.0f}" if task.noise else "no noise"
        rows.append(
            f"| `{task.name}` | {train} / {test} | {task.metric}, {task.direction} | {task.m_init:.4f} | "
            f"{task.m_best:.4f} | {task.m_best_source.split(BY_SEARCH)[-1]} | {task.noise:.3g} | {headroom} |"
        )
    return "\n".join(rows) + "\n"


def num_rows(file: Path) -> int:
    """Return the rows of a table of the suite, whose cells hold no line breaks."""
    return len(file.read_text(encoding="utf-8").splitlines()) - 1


def replaced(document: str, text: str) -> str:
    """Return the page with `text` between its marker lines. Raises ValueError if they are missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT} lacks the marker lines {BEGIN} and {END}; put them back")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
