"""Any table is read back exactly or refused in one line."""

import importlib.util
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from rollout.task_tools.from_table import records, user_table
from rollout.task_tools.from_table.records import Record
from rollout.task_tools.from_table.user_table import read_user_table
from tasks.text_table import read_text_table, write_table

GENERATOR = Path(__file__).with_name("table_generator.py")
spec = importlib.util.spec_from_file_location("table_generator", GENERATOR)
assert spec is not None and spec.loader is not None
table_generator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table_generator)


def outcome(seed: int, folder: Path) -> str:
    """Return what becomes of a random table: `exact`, `refused`, or what was silently wrong."""
    made = table_generator.table(seed)
    file = folder / "table.csv"
    file.write_bytes(made.data)
    try:
        read = read_user_table(file, "price", "mae", None, made.form)
    except ValueError as error:
        assert "\n" not in str(error) and str(file) in str(error), str(error)
        return "fault refused" if made.fault else "refused"
    if made.fault:
        return f"accepted: {made.fault}"
    expected = made.expected()
    if [read.cells[name].tolist() for name in read.cells] != expected:
        return "read otherwise"
    write_table(read.cells, folder / "data.csv")
    again = pd.read_csv(folder / "data.csv", dtype=str, keep_default_na=False)  # as the task's prepare.py reads it
    checked = read_text_table(folder / "data.csv")  # as validation reads it
    same = all([table[name].tolist() for name in table] == expected for table in (again, checked))
    return "exact" if same else "written otherwise"


def outcomes(seeds: range, folder: Path) -> Counter[str]:
    return Counter(outcome(seed, folder) for seed in seeds)


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_table, "MIN_ROWS", 2)


def require_exact_or_refused(found: Counter[str]) -> None:
    assert set(found) <= {"exact", "refused", "fault refused"}, found
    assert found["refused"] < 0.1 * found["exact"], found


def test_a_table_is_read_back_exactly_or_refused(tmp_path: Path) -> None:
    require_exact_or_refused(outcomes(range(200), tmp_path))


@pytest.mark.slow
def test_five_thousand_tables_are_read_back_exactly_or_refused(tmp_path: Path) -> None:
    require_exact_or_refused(outcomes(range(1000, 6000), tmp_path))


def test_the_check_notices_a_reader_that_drops_surplus_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(rows: list[Record], separator: str) -> list[Record]:
        width = len(rows[0].fields)
        return [Record(row.line, (row.fields + [""] * width)[:width]) for row in rows]

    monkeypatch.setattr(records, "_table", cut)
    assert outcomes(range(150), tmp_path)["accepted: surplus field"] > 2
