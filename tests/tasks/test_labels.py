"""Labels compare exactly: numbers of any size and in any writing, truth values, and texts."""

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.csv_columns import InvalidSubmission
from tasks.grading import score
from tasks.labels import exact_values, to_labels, to_rankings

DIGITS = st.one_of(st.text("0123456789", max_size=4), st.text("09", max_size=30), st.integers(0, 10**40).map(str))


@st.composite
def numerals(draw: st.DrawFn) -> str:
    """Return a decimal number as scripts and people write them, also with needless signs and zeros."""
    whole, part = draw(DIGITS), draw(DIGITS)
    if not whole + part:
        whole = "0"
    body = draw(st.sampled_from([whole, f"{whole}."])) if not part else f"{whole}.{part}"
    power = draw(st.one_of(st.just(""), st.integers(-50, 50).map(lambda power: f"e{power}"), st.just("E+3")))
    return draw(st.sampled_from(["", "", "+", "-"])) + body + power


@st.composite
def rewritten(draw: st.DrawFn, numeral: str) -> str:
    """Return a number in another writing: the same value, or one that is almost the same."""
    value = Fraction(numeral)
    power = draw(st.integers(-3, 3))
    digits = value * 10**120 / Fraction(10) ** power
    assert digits.denominator == 1
    shift = draw(st.sampled_from([0, 0, 1, 10**100]))
    return draw(st.sampled_from(["", "00"])).join(["-" if digits + shift < 0 else "", str(abs(digits + shift))]) + (
        f"e{power - 120}"
    )


@settings(max_examples=250, deadline=None)
@given(numerals().flatmap(lambda one: st.tuples(st.just(one), st.one_of(numerals(), rewritten(one)))))
@example(("9007199254740993", "9007199254740992"))
@example(("0.1", "0.1000000000000000055511151231257827"))
@example(("-0", "0e5"))
@example(("1e400", "10e399"))
def test_exact_values_are_equal_if_and_only_if_the_rational_numbers_are(pair: tuple[str, str]) -> None:
    first, second = exact_values(pa.array(pair)).to_pylist()
    assert (first == second) == (Fraction(pair[0]) == Fraction(pair[1]))
    labels = to_labels(pa.chunked_array([list(pair)]), [pair[0]])
    assert (labels[0] == labels[1]) == (Fraction(pair[0]) == Fraction(pair[1]))


@pytest.mark.parametrize("text", ["", "+", ".", "-.", "e5", "1e", "1_000", "0x1", "1 0", "١", "nan", "inf", "1,5"])
def test_what_is_no_decimal_number_has_no_exact_value(text: str) -> None:
    assert exact_values(pa.array([text])).to_pylist() == [None]


def graded(answers: list[str], submitted: list[str], folder: Path, metric: str = "accuracy") -> float:
    """Return the score of submitted labels."""
    file = folder / "answers.csv"
    file.write_text("id,target\n" + "".join(f"{row},{label}\n" for row, label in enumerate(answers)))
    return score(
        ("id,target\n" + "".join(f"{row},{label}\n" for row, label in enumerate(submitted))).encode(), file, metric
    )


def test_account_numbers_above_2_to_the_53_differ(tmp_path: Path) -> None:
    accounts = [str(2**53 + number) for number in range(8)]
    wrong = accounts[1:] + accounts[:1]
    assert np.mean(np.array(accounts, float) == np.array(wrong, float)) > 0  # as floating-point numbers some are equal
    for metric in ("accuracy", "f1", "map_at_5"):
        assert graded(accounts, accounts, tmp_path, metric) == 1.0
        assert graded(accounts, wrong, tmp_path, metric) == 0.0


@pytest.mark.parametrize("written", ["3", "3.0", "3.00", "+3", "3e0", "003", "3.", "30e-1", "0.3E+1"])
@pytest.mark.parametrize("metric", ["accuracy", "f1", "map_at_5"])
def test_a_number_may_be_written_in_any_way(tmp_path: Path, written: str, metric: str) -> None:
    assert graded(["3", "5"], [written, "5.0"], tmp_path, metric) == 1.0
    assert graded([written, "5.0"], ["3", "5"], tmp_path, metric) == 1.0


@pytest.mark.parametrize("almost", ["3.0000000000000000001", "2.9999999999999999999", "-3", "3e1", "9" * 400])
def test_a_number_that_is_almost_the_label_is_wrong(tmp_path: Path, almost: str) -> None:
    assert graded(["3", "5"], [almost, "5"], tmp_path) == 0.5


def test_classes_that_differ_in_writing_only_stay_apart(tmp_path: Path) -> None:
    for first, second in [("007", "7"), ("1.10", "1.1"), ("1e5", "100000")]:
        answers = [first, second, "2"]
        assert graded(answers, answers, tmp_path) == 1.0
        assert graded(answers, [second, first, "2.0"], tmp_path) == pytest.approx(1 / 3)
    assert graded(["007", "12"], ["7", "12.0"], tmp_path) == 1.0  # pandas reads and writes 007 as 7


@pytest.mark.parametrize(
    ("answers", "submitted", "expected"),
    [
        ("00101", "00101", 1.0),
        ("01101", "10110", 1 / 3),  # 2 TP / (2 TP + FP + FN) = 2 / 6
        ("00000", "00100", 0.0),
        ("11111", "11111", 1.0),
    ],
)
def test_f1_of_zeros_and_ones_is_that_of_class_one_in_any_writing(
    tmp_path: Path, answers: str, submitted: str, expected: float
) -> None:
    for suffix in ("", ".0", "e0"):
        written = [label + suffix for label in submitted]
        assert graded(list(answers), written, tmp_path, "f1") == pytest.approx(expected)
        assert graded([label + ".0" for label in answers], written, tmp_path, "f1") == pytest.approx(expected)


def test_f1_counts_each_other_label_once(tmp_path: Path) -> None:
    """The labels 2 and 3 are right or not; 9007199254740993 and ...992 are two labels that no row has."""
    assert graded(["2", "3", "3"], ["2", "3", "9"], tmp_path, "f1") == pytest.approx((1 + 2 / 3 + 0) / 3)
    other = [str(2**53), str(2**53 + 1)]
    assert graded(["2", "3", "3", "3"], ["2", "3", *other], tmp_path, "f1") == pytest.approx((1 + 0.5) / 4)
    assert graded(["a", "b", "b"], ["a", "b", "0"], tmp_path, "f1") == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_texts_are_not_normalized(tmp_path: Path) -> None:
    assert graded(["caf\u00e9", "a"], ["cafe\u0301", "a"], tmp_path) == 0.5
    assert graded(["1a", "3"], ["1a", "3.0"], tmp_path) == 0.5  # a single word makes all labels words


def test_ratings_are_numbers(tmp_path: Path) -> None:
    assert graded(["1", "2", "4"], ["1.0", "2", "4e0"], tmp_path, "qwk") == 1.0
    assert graded(["001", "2", "4"], ["1", "2", "4"], tmp_path, "qwk") == 1.0
    for fault in ("1.5", str(2**53 + 2)):
        with pytest.raises(ValueError, match="not a whole number, or is beyond 2"):
            graded(["1", fault], ["1", "2"], tmp_path, "qwk")
    with pytest.raises(ValueError, match=r"answers\.csv.*a prediction is missing or is not a number"):
        graded(["one", "two"], ["one", "two"], tmp_path, "qwk")


def test_rankings_are_padded_and_hold_any_label() -> None:
    cells = pa.chunked_array([["3.0 oak", "7"]])
    assert to_rankings(cells, ["3", "7"]).tolist() == [[2, 4, -1, -1, -1], [3, -1, -1, -1, -1]]


@pytest.mark.parametrize("label", ["", "oak", "nan", "1e" + "0" * 20 + "1"])
def test_a_label_among_numbers_is_a_number(label: str) -> None:
    with pytest.raises(InvalidSubmission, match="a prediction is"):
        to_labels(pa.chunked_array([["3", label]]), ["3", "5"])


def test_six_million_labels_take_seconds() -> None:
    rows = pa.array([str(label) for label in range(100)]).take(pa.array(np.arange(6_000_000) * 37 % 100))
    started = time.process_time()
    labels = to_labels(pa.chunked_array([rows]), [str(label) for label in range(100)])
    assert time.process_time() - started < 3
    assert labels.min() == 0 and labels.max() == 99
