"""Hostile and damaged submissions have a score or a reason at once."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.grading import InvalidSubmission, score
from tasks.metric import METRICS


def reason(submission: bytes, answers: Path, metric: str) -> str:
    with pytest.raises(InvalidSubmission) as caught:
        score(submission, answers, metric)
    return str(caught.value)


def test_many_unexpected_columns_are_not_all_spelt_out(answers):
    told = reason((",".join(f"column_{i}" for i in range(5000)) + "\n").encode(), answers, "mae")
    assert "... (5000 columns)" in told and len(told) < 200


@pytest.mark.parametrize("filler", [b"\n", b"\r\n", b",", b"\0", b"0"])
def test_a_submission_far_larger_than_its_rows_is_not_read(answers, filler):
    """32 MiB of blank lines, which change no score, took 1.5 s of the process that trains."""
    honest = b"id,target\n10,3\n11,1\n12,1\n13,0\n"
    score(honest + b"\n" * 1000, answers, "mae")
    submission = honest + filler * ((32 << 20) // len(filler) - 100)
    started = time.perf_counter()
    assert "rows of its columns take at most" in reason(submission, answers, "mae")
    assert time.perf_counter() - started < 0.2


HOSTILE = {
    "columns": b"id," + b"a," * 120_000 + b"a\n",
    "columns in a row": b"id,target\n10" + b"," * 250_000 + b"\n",
    "quotes": b"id,target\n" + b'"' * 250_001,
    "open quotes": b"id,target\n" + b'"a\n' * 80_000,
    "quote in the header": b'id,"target\n' + b"10,3\n" * 50_000,
    "bytes": b"id,target\n" + bytes(range(256)) * 1000,
    "empty rows": b"id,target\n" + b",\n" * 120_000,
    "rows": b"id,target\n" + b"10,1\n" * 50_000,
    "huge id": b"id,target\n" + b"1" * 250_000 + b",1\n",
    "huge label": b"id,target\n10," + b"x" * 250_000 + b"\n11,1\n12,1\n13,1\n",
    "many labels": b"id,target\n10," + b"x " * 120_000 + b"\n11,1\n12,1\n13,1\n",
    "carriage returns": b"id,target" + b"\r" * 250_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_has_a_reason_at_once(answers, named_answers, name):
    for metric, file in [("mae", answers), ("qwk", answers), ("accuracy", named_answers)]:
        score(file.read_bytes(), file, metric)
        started = time.process_time()
        told = reason(HOSTILE[name], file, metric)
        assert time.process_time() - started < 0.5
        assert len(told) < 300


def test_a_huge_label_is_a_wrong_label(named_answers):
    submission = b"id,target\n1,oak\n2," + b"x" * 250_000 + b"\n3,oak\n"
    for metric in ("accuracy", "map_at_5"):
        assert score(submission, named_answers, metric) == pytest.approx(2 / 3)


PIECES = [
    b'"',
    b"\0",
    b"\xff",
    b",",
    b"\n",
    b"\r",
    b"nan",
    b"1e308",
    b"-1e308",
    b"1e200",
    b"a b",
    b"\xef\xbb\xbf",
    b"9" * 400,
]


@pytest.mark.parametrize("metric", METRICS)
def test_a_damaged_submission_has_a_score_or_a_reason(answers_file, metric):
    """Any other exception would end the run; any warning is an error here."""
    rng = random.Random(metric)
    file = answers_file("id,target\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    header = "id,0,1" if metric == "log_loss" else "id,target"
    honest = (
        header + "\n" + "".join(f"{i},0.5,0.5\n" if "0" in header else f"{i},{i % 2}\n" for i in range(20))
    ).encode()
    assert isinstance(score(honest, file, metric), float)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(honest)
        for _ in range(rng.choice([1, 2, 8])):
            start = rng.randrange(len(damaged) + 1)
            damaged[start : start + rng.choice([0, 0, 1, 9])] = rng.choice([*PIECES, rng.randbytes(3)])
        try:
            assert np.isfinite(score(bytes(damaged), file, metric))
            outcomes.add("scored")
        except InvalidSubmission:
            outcomes.add("refused")
    assert outcomes == {"scored", "refused"}
