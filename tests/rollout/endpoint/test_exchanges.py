"""The journal of exchanges on disk: torn, cut into parts, and without room for the next one."""

from pathlib import Path

import pytest

from rollout.endpoint import Exchanges
from rollout.endpoint.usage import Usage
from rollout.errors import CorruptRecord


def test_a_torn_journal_loses_its_last_line_alone(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(3)]
    counts = {"answered": True, "end": "stop", "empty": 0, "attempts": 1, "input": 5, "cached": 1, "output": 2}
    exchanges = Exchanges(tmp_path)
    for key in keys:
        body = {"request": {"messages": [',"request":']}, "answer": f'to {key} ,"request":'}
        exchanges.add(key, counts | {"estimated": 0}, body)
    exchanges.close()
    path = tmp_path / "part-00000.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    torn = Exchanges(tmp_path)
    assert torn.totals.usage == Usage(10, 2, 4) and torn.totals.answers == 2
    assert torn.find(keys[2]) is None
    torn.add(keys[2], counts | {"estimated": 0}, {"request": {}, "answer": "anew"})
    torn.close()
    whole = Exchanges(tmp_path)
    found = [whole.find(key) for key in keys]
    assert [one["answer"] for one in found if one] == [f'to {key} ,"request":' for key in keys[:2]] + ["anew"]
    whole.close()
    path.write_bytes(content.replace(b'"input":5', b'"input":x', 1))
    damaged = r"part-00000.jsonl line 1 is damaged, or not an exchange; remove what is damaged with `sed -i 1d \S*`"
    with pytest.raises(CorruptRecord, match=damaged):
        Exchanges(tmp_path)
    path.write_bytes(content.replace(b'"answer":"to 0', b'"answer":"to 1', 1))  # an answer that nobody gave
    with pytest.raises(CorruptRecord, match=damaged):
        Exchanges(tmp_path)
    path.write_bytes(content)
    changed = Exchanges(tmp_path)
    path.write_bytes(content.replace(b'"answer":"to 0', b'"answer":"to 1', 1))
    with pytest.raises(CorruptRecord, match="at byte 0 does not have the exchange"):
        changed.find(keys[0])
    changed.close()


def test_the_journal_is_cut_into_files_that_go_on_from_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.endpoint.exchanges.PART_BYTES", 1000)
    counts = {"answered": True, "end": "stop", "empty": 0, "attempts": 1, "input": 5, "cached": 1, "output": 2}
    keys = [f"{number:064x}" for number in range(20)]
    for start in (0, 10):
        exchanges = Exchanges(tmp_path)
        for key in keys[start : start + 10]:
            exchanges.add(key, counts | {"estimated": 0}, {"request": {}, "answer": key * 2})
        exchanges.close()
    assert len(list(tmp_path.iterdir())) > 4
    again = Exchanges(tmp_path)
    assert again.totals.answers == 20
    assert all((found := again.find(key)) and found["answer"] == key * 2 for key in keys)
    again.close()


def test_a_part_that_cannot_be_begun_leaves_the_one_before_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"answered": True, "end": "", "empty": 0, "attempts": 1, "estimated": 0}
    counts |= dict.fromkeys(("input", "cached", "output"), 1)
    monkeypatch.setattr("rollout.endpoint.exchanges.PART_BYTES", 1)
    journal = Exchanges(tmp_path)
    journal.add("0" * 64, counts, {"request": {}, "answer": "first"})
    (tmp_path / "part-00001.jsonl").mkdir()
    with pytest.raises(OSError, match="part-00001"):
        journal.add("1" * 64, counts, {"request": {}, "answer": "second"})
    other = (tmp_path / "other").open("w+")  # gets the number of a file that was closed, if one was
    (tmp_path / "part-00001.jsonl").rmdir()
    journal.add("2" * 64, counts, {"request": {}, "answer": "third"})
    journal.close()
    other.close()
    assert (tmp_path / "other").read_text() == ""
    again = Exchanges(tmp_path)
    found = [again.find(key * 64) for key in "012"]
    assert [one and one["answer"] for one in found] == ["first", None, "third"]
