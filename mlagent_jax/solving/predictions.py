"""Turn a submission into predictions in the user's own names, and predict new rows with a delivered script."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from mlagent_jax.solving.problem import numbered
from rollout.errors import ExecutorError
from rollout.executor import open_executor
from rollout.executor.fit import fit
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.storage.atomic_write import replacing, write_atomically
from rollout.storage.blob_store import BlobStore
from rollout.task_tools.from_table.new_rows import RowReader
from rollout.types import Execution, Exit
from tasks.csv_columns import InvalidSubmission, match_ids, read_columns, read_header, require_columns
from tasks.error_line import error_line
from tasks.grading import predicted_values
from tasks.labels import to_labels
from tasks.metric import METRICS
from tasks.quoting import quoted, user_path
from tasks.task import Limits
from tasks.text_table import write_table

SPEC, TRAIN, SCRIPT, PREDICT = "model.json", "train.csv", "train.py", "predict.py"
PREDICTIONS = "predictions.csv"
SECONDS = 3600.0  # for a fit on all rows
PREDICT_SCRIPT = '''\
"""Predict the rows of a table: python predict.py new.csv [predictions.csv]

Fits train.py on train.csv in the sandbox, as `mlagent solve` did, then predicts. Needs mlagent_jax.
"""

import sys
from pathlib import Path

from mlagent_jax.solving.predictions import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, sys.argv[1:]))
'''


@dataclass(frozen=True)
class ModelSpec:
    """Everything that predicting with a delivered script needs besides the script and its rows.

    Attributes:
        reader: The reader of rows of the user's table.
        metric: The metric, on which the form of the predictions depends.
        classes: The classes as the script knows them; empty if the target is a number.
        limits: The limits of a run of the script.
        num_rows: The number of the rows that it is fitted on, from which the ids of others count.
        python: The interpreter of the task environment.
    """

    reader: RowReader
    metric: str
    classes: tuple[str, ...]
    limits: Limits
    num_rows: int
    python: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a submission besides `id`."""
        return self.classes if METRICS[self.metric].form == "distribution" else ("target",)

    def save(self, path: Path) -> None:
        """Write the specification as JSON."""
        write_atomically(path, TypeAdapter(ModelSpec).dump_json(self, indent=1))


def load_spec(path: Path) -> ModelSpec:
    """Return the specification in a file. Raises ValueError if it is damaged."""
    try:
        return TypeAdapter(ModelSpec).validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path} is damaged; run `mlagent solve` again") from None


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Predict the rows of the table that the first argument names, and return the exit status."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print("usage: python predict.py FILE [PREDICTIONS]", file=sys.stderr)
        return 2
    out = user_path(arguments[1]) if len(arguments) > 1 else Path(PREDICTIONS)
    try:
        count = predict(folder, user_path(arguments[0]), out)
    except (ValueError, OSError, ExecutorError) as error:
        print(f"predict.py: {error_line(error)}", file=sys.stderr)
        return 2
    print(f"{count} rows are predicted in {out}")
    return 0


def predict(folder: Path, file: Path, out: Path) -> int:
    """Write the predictions of a file's rows, in their order, and return their number.

    Args:
        folder: The folder `best` of a result.
        file: The rows.
        out: The file of the predictions.

    Raises:
        ValueError: If the rows cannot be read, or the script fails on them.
        ExecutorError: If the sandbox failed.
    """
    spec = load_spec(folder / SPEC)
    if out.resolve() == file.resolve():
        raise ValueError(f"{out} holds the rows to predict; write the predictions to another file")
    rows, ids = spec.reader.read(file)
    rows = numbered(rows, spec.num_rows)
    with tempfile.TemporaryDirectory() as temporary:
        test = Path(temporary) / "test.csv"
        write_table(rows, test)
        store = BlobStore(Path(temporary) / "blobs")
        with (
            open_executor(ExecutorOptions(python=spec.python), store, Path(temporary) / "cache") as opened,
            EventLoopThread() as loop,
        ):
            source = (folder / SCRIPT).read_text(encoding="utf-8")
            tables = {TRAIN: folder / TRAIN, "test.csv": test}
            execution = loop.run(fit(opened.executor, store, source, tables, spec.limits, SECONDS))
        write_predictions(out, predictions(execution, rows["id"].tolist(), spec), ids, spec.reader)
    return len(rows)


def predictions(execution: Execution, ids: Sequence[str], spec: ModelSpec) -> pd.DataFrame:
    """Return the predictions that a script left, in the order of `ids`, under the user's names.

    Raises:
        ValueError: If the script failed or left other rows.
    """
    if execution.exit is not Exit.OK or execution.submission is None:
        last = (execution.output.strip().splitlines() or ["no output"])[-1]
        raise ValueError(f"the script left no predictions ({execution.exit}): {last[:200]}")
    try:
        header = read_header(execution.submission)
        require_columns(header, ("id", *spec.columns))
        found, *cells = read_columns(execution.submission, header, ("id", *spec.columns))
        order = match_ids(found, pa.chunked_array([list(ids)], pa.string()))
        cells = [column.take(pa.array(order)) for column in cells]
        form = METRICS[spec.metric].form
        predicted_values(cells, form, spec.classes)  # raises unless they are numbers, or labels
        if form == "label":
            return pd.DataFrame({spec.reader.target: _users_labels(cells[0], spec)}, dtype=object)
    except InvalidSubmission as error:
        raise ValueError(f"the script's predictions are not usable: {error}") from None
    if form == "distribution":
        names = [spec.reader.labels[name] for name in spec.columns]
    else:
        names = [spec.reader.target]
    return pd.DataFrame({name: column.to_pylist() for name, column in zip(names, cells, strict=True)}, dtype=object)


def _users_labels(cells: pa.ChunkedArray, spec: ModelSpec) -> list[str]:
    """Return predicted labels, such as 1.0, in the spelling of the user's table. Raises InvalidSubmission."""
    both = pa.chunked_array([pa.array(spec.classes, pa.string()), *cells.chunks])
    numbers = to_labels(both, spec.classes).tolist()
    known = dict(zip(numbers, spec.classes, strict=False))  # the classes come first
    found = [known.get(number) for number in numbers[len(spec.classes) :]]
    if None in found:
        raise InvalidSubmission(f"it has the label {quoted(cells[found.index(None)].as_py())}, which is no class")
    return [spec.reader.labels[label] for label in found if label is not None]


def write_predictions(out: Path, table: pd.DataFrame, ids: Sequence[str] | None, reader: RowReader) -> None:
    """Write predictions with the cells of the user's id column first, if there is one."""
    if ids is not None:
        name = reader.id_column or "id"
        while name in table.columns:  # a class may be named like it
            name += "_id"
        table.insert(0, name, list(ids))
    with replacing(out) as temporary:
        write_table(table, temporary)
