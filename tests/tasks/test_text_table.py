"""The tables of a task are read and written without changing, shifting or dropping a cell."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.split import write_split
from tasks.task import Submission
from tasks.task_tables import read_task_tables
from tasks.text_table import read_text_table, write_table

CELLS = st.text(st.sampled_from(list('a1 ,;"\n\r\té0')), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_any_texts_are_read_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    file = tmp_path_factory.mktemp("tables") / "table.csv"
    table = pd.DataFrame(rows, columns=["a", "b\r", "c\nd"], dtype=object)
    write_table(table, file)
    for read in (read_text_table(file), pd.read_csv(file, dtype=str, keep_default_na=False)):
        assert list(read) == list(table)
        assert read.to_numpy().tolist() == table.to_numpy().tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,x,x\n1,2,3\n", "columns 2 and 3 are both named 'x'; rename or remove one"),
        (b"id,x\n1,2\n1,2,3\n", "row 2 has 3 fields, but the header has 2; write it again"),
        (b"id,x\n1,2,3\n1,2,3\n", "row 1 has 3 fields, but the header has 2; write it again"),
        (b"id,x\n1\n", "row 1 has 1 fields, but the header has 2; write it again"),
        (b"id,x\n1,\xff\n", "is not UTF-8 text"),
        (b"", "it has no header in its first line"),
    ],
)
def test_a_public_table_that_readers_would_change_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    for part in ("public", "private"):
        (tmp_path / part).mkdir()
    (tmp_path / "private/answers.csv").write_text("id,target\n1,2\n")
    (tmp_path / "public/test.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"public/test.csv is not a CSV table: .*{reason}"):
        read_task_tables(tmp_path / "public", tmp_path / "private", Submission(), "answers.csv")


def test_a_split_keeps_carriage_returns_in_cells(tmp_path: Path) -> None:
    table = pd.DataFrame({"note": [f"line {n}\rnext" for n in range(9)], "target": range(9)})
    write_split(table, tmp_path, tmp_path, num_train=6)
    notes = [*read_text_table(tmp_path / "train.csv")["note"], *read_text_table(tmp_path / "test.csv")["note"]]
    assert sorted(notes) == table["note"].tolist()
