"""Submissions of every form have a score, or one reason for a fault; faulty answers are no fault of theirs."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from tasks.grading import InvalidSubmission, grade, score
from tasks.task import Submission, Task


def csv_bytes(header: list[str], rows: list[tuple[object, ...]]) -> bytes:
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def reason(submission: bytes, answers: Path, metric: str, form: Submission = Submission()) -> str:  # noqa: B008
    with pytest.raises(InvalidSubmission) as caught:
        score(submission, answers, metric, form)
    return str(caught.value)


# Valid submissions


@pytest.mark.parametrize("name", ["accuracy", "mae"])
def test_rows_count_by_id_in_any_order(answers, name):
    rows: list[tuple[object, ...]] = [(10, 3), (11, 1), (12, 0), (13, 0)]
    straight = score(csv_bytes(["id", "target"], rows), answers, name)
    random.Random("shuffle").shuffle(rows)
    assert score(csv_bytes(["target", "id"], [(b, a) for a, b in rows]), answers, name) == straight
    assert straight == {"accuracy": 0.75, "mae": 0.25}[name]


def test_labels_that_are_numbers_compare_as_numbers(answers):
    assert score(csv_bytes(["id", "target"], [(10, "3.0"), (11, "1"), (12, "1."), (13, 0)]), answers, "accuracy") == 1.0


def test_labels_that_are_names_compare_as_text(named_answers):
    assert score(b"id,target\n1,oak\n2,elm\n3,maple\n", named_answers, "accuracy") == pytest.approx(2 / 3)
    assert score(b"id,target\n1,Oak\n2,elm\n3,oak\n", named_answers, "accuracy") == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_true_and_false_may_be_written_in_any_case_and_as_numbers(answers_file, metric):
    answers = answers_file("id,target\n1,True\n2,False\n3,True\n")
    assert score(b"id,target\n1,TRUE\n2,false\n3,True\n", answers, metric) == 1.0
    assert score(b"id,target\n1,1\n2,10\n3,yes\n", answers, metric) < 0.5
    assert score(b"id,target\n1,1.0\n2,0\n3,1\n", answers, metric) == 1.0


def test_ids_compare_as_text(answers):
    assert reason(b"id,target\n10.0,3\n11,1\n12,1\n13,0\n", answers, "mae").startswith("row 1 has the id '10.0'")


def test_columns_go_by_the_names_of_the_task(answers_file):
    answers = answers_file("Image,b,Usage,a\nx y.png,1,Public,2\n z ,3,Private,4\n")
    form = Submission("Image", ("a", "b"))
    assert score(b"b,a,Image\n3,4,z\n1,0,x y.png\n", answers, "mae", form) == 0.5
    assert reason(b"Image,a\nz,4\n", answers, "mae", form) == "its columns are Image, a; expected Image, a, b"
    assert reason(b"id,a,b\nz,4,1\n", answers, "mae", form) == "its columns are id, a, b; expected Image, a, b"


def test_ids_and_labels_may_hold_commas_quotes_and_line_breaks(answers_file):
    answers = answers_file('id,target\n"a,b","x\ny"\n"say ""no""",z\n')
    assert score(b'id,target\r\n"say ""no""",z\r\n"a,b","x\ny"\r\n', answers, "accuracy") == 1.0


@pytest.mark.parametrize(
    "submission",
    [
        b"id,target\r\n10,3\r\n11,1\r\n12,1\r\n13,0\r\n",
        b"\xef\xbb\xbfid,target\n10,3\n11,1\n12,1\n13,0",
        b'"id","target"\n\n"10" , 3\n\n 11,1 \n12,"1"\n13,0\n\n'.replace(b'"10" ', b'"10"'),
        b"id,target\n10,3e0\n11,+1\n12,1.000\n13,-0\n",
    ],
)
def test_numbers_are_read_as_scripts_write_them(answers, submission):
    assert score(submission, answers, "mae") == 0.0


# Distributions, probabilities, rankings


def test_distributions_are_found_by_class_and_scaled(named_answers):
    rows = b"elm,oak,id\n0.5,0.501,1\n0.8,0.2,2\n0,1,3\n"
    expected = -np.mean(np.log([0.501 / 1.001, 0.8, 1.0]))
    assert score(rows, named_answers, "log_loss") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("id,target\n1,oak\n2,elm\n", ()),
        ("id,species\n1,oak\n2,elm\n", ()),
        ("id,species\n1,oak\n2,elm\n", ("oak", "elm")),
        ("id,elm,oak\n1,0,1\n2,1,0\n", ("oak", "elm")),
        ("id,elm,oak,Usage\n1,0,1.0,x\n2,1,0,y\n", ("elm", "oak")),
        ("Usage,id,target\nx,1,oak\ny,2,elm\n", ()),
    ],
)
def test_the_answers_of_a_distribution_are_labels_or_one_hot(answers_file, text, columns):
    expected = -np.mean(np.log([0.75, 0.5]))
    form = Submission("id", columns)
    assert score(b"id,oak,elm\n2,0.5,0.5\n1,0.75,0.25\n", answers_file(text), "log_loss", form) == pytest.approx(
        expected
    )


def test_a_class_that_no_test_row_has_still_has_its_column(answers_file):
    answers, form = answers_file("id,target\n1,b\n2,c\n"), Submission("id", ("a", "b", "c"))
    assert score(b"id,a,b,c\n1,0.5,0.5,0\n2,0.5,0,0.5\n", answers, "log_loss", form) == pytest.approx(np.log(2))


def test_a_single_column_is_the_probability_of_one(answers_file):
    form = Submission("id", ("p",))
    for text in ("id,p\n1,1\n2,0\n", "id,is_iceberg\n1,1\n2,0\n", "id,p,Usage\n1,1,x\n2,0,x\n"):
        answers = answers_file(text)
        assert score(b"id,p\n2,0.25\n1,0.5\n", answers, "log_loss", form) == pytest.approx(-np.log([0.5, 0.75]).mean())
    assert reason(b"id,p\n1,1.001\n2,0\n", answers, "log_loss", form) == "a probability is not between 0 and 1"
    assert reason(b"id,p\n1,-0.1\n2,0\n", answers, "log_loss", form) == "a probability is not between 0 and 1"


def test_a_ranking_has_up_to_five_labels(named_answers):
    assert score(b"id,target\n1,oak elm\n2,oak  elm \n3,a b c d oak\n", named_answers, "map_at_5") == pytest.approx(
        1.7 / 3
    )
    six = b"id,target\n1,oak elm\n2,a b c d e f\n3,a\n"
    assert reason(six, named_answers, "map_at_5") == "a row ranks 6 labels; at most 5 are allowed"
    assert reason(b"id,target\n1,oak\n2,\n3,a\n", named_answers, "map_at_5") == "a prediction is missing"


# Invalid submissions


@pytest.mark.parametrize(
    ("submission", "expected"),
    [
        (b"", "its columns are none; expected id, target"),
        (b"\n10,1\n", "its columns are none; expected id, target"),
        (b"id,prediction\n10,1\n", "its columns are id, prediction; expected id, target"),
        (b"id,target,target\n10,1,1\n", "its columns are id, target, target; expected id, target"),
        (b"id,target", "4 of 4 test ids are missing"),
        (b"id,target\n10,1\n11,1\n12,1\n", "1 of 4 test ids are missing"),
        (b"id,target\n10,1\n10,1\n12,1\n13,1\n", "the id 10 occurs 2 times"),
        (b"id,target\n10,1\n11,1\n12,1\n13,1\n13,1\n13,1\n", "the id 13 occurs 3 times"),
        (b"id,target\n10,1\n11,1\n\n12,1\n13,1\n14,1\n", "row 5 has the id '14', which is not in the test data"),
        (b"id,target\n10,1\n\n11,1,1\n", "row 2 has 3 columns, not 2"),
        (b"id,target\n10,1\n11\n", "row 2 has 1 columns, not 2"),
        (b"id,target\n10,1\n11,nan\n12,1\n13,1\n", "a prediction is NaN or infinite"),
        (b"id,target\n10,1\n11,-inf\n12,1\n13,1\n", "a prediction is NaN or infinite"),
        (b"id,target\n10,1\n11,1e999\n12,1\n13,1\n", "a prediction is NaN or infinite"),
        (b"id,target\n10,1\n11,\n12,1\n13,1\n", "a prediction is missing or is not a number: '' in row 2"),
        (b"id,target\n10,1\n11,NA\n12,1\n13,1\n", "a prediction is missing or is not a number: 'NA' in row 2"),
        (b"id,target\n10,1\n11,high\n12,1\n13,1\n", "a prediction is missing or is not a number: 'high' in row 2"),
        (b"id,target\n10,1\n11,0x1\n12,1_0\n13,1\n", "a prediction is missing or is not a number: '0x1' in row 2"),
        (b"id,target\n10,1\n11,1\0\n12,1\n13,1\n", r"a prediction is missing or is not a number: '1\x00' in row 2"),
        (b"id,target\n10,1\n11,1e200\n12,1\n13,1\n", "the predictions are too large to be scored"),
        (b"id,target\n10,\xff\n", "it is not UTF-8 text"),
        (b"id,t\xe4rget\n10,1\n", "it is not UTF-8 text"),
        (b"id,target\n10,1,\xff\n", "row 1 has 3 columns, not 2"),
        (b"id,target\n10," + b"1" * 200_000 + b"\n", "3 of 4 test ids are missing"),
        (b"id," + b"t" * 200_000 + b"\n", "a name in its header has more than 131072 characters"),
        (b'id,target\n"10,1\n11,1\n12,1\n13,1\n', "row 1 has 1 columns, not 2"),
        (b'id,target\n10,1\n11,"1\n12,1\n13,1\n', "2 of 4 test ids are missing"),
        (b"\x80\x04\x95(cposix\nsystem\n", "it is not UTF-8 text"),  # a pickle is bytes like any other
    ],
)
def test_an_invalid_submission_has_one_reason(answers, submission, expected):
    assert reason(submission, answers, "rmse") == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (b"id,oak\n1,1\n2,1\n3,1\n", "its columns are id, oak; expected id, elm, oak"),
        (b"id,elm,oak\n1,0.5,0.4\n2,0,1\n3,1,0\n", "the probabilities of a row are not between 0 and 1 with the sum 1"),
        (
            b"id,elm,oak\n1,-0.5,1.5\n2,0,1\n3,1,0\n",
            "the probabilities of a row are not between 0 and 1 with the sum 1",
        ),
        (
            b"id,elm,oak\n1,1e308,1e308\n2,0,1\n3,1,0\n",
            "the probabilities of a row are not between 0 and 1 with the sum 1",
        ),
        (b"id,elm,oak\n1,nan,1\n2,0,1\n3,1,0\n", "a prediction is NaN or infinite"),
    ],
)
def test_what_is_no_distribution_is_invalid(named_answers, rows, expected):
    assert reason(rows, named_answers, "log_loss") == expected


@pytest.mark.parametrize("value", ["nan", "", "one"])
def test_numeric_labels_must_be_numbers(answers, value):
    with pytest.raises(InvalidSubmission, match="a prediction is"):
        score(f"id,target\n10,{value}\n11,1\n12,1\n13,1\n".encode(), answers, "accuracy")


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_a_named_label_may_not_be_missing(named_answers, metric):
    assert reason(b"id,target\n1,oak\n2, \n3,oak\n", named_answers, metric) == "a prediction is missing"


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("pearson", "1", "all predictions are the same, which correlates with nothing"),
        ("rmsle", "-1", "a prediction is -1 or less, and rmsle takes the logarithm of 1 + x"),
        ("qwk", "1.5", "a prediction is not a whole number"),
        ("qwk", "1e200", "the predictions are too large to be scored"),
        ("mcrmse", "1e200", "the predictions are too large to be scored"),
    ],
)
def test_what_a_metric_has_no_value_for_is_invalid(answers, metric, value, expected):
    rows: list[tuple[object, ...]] = [(10 + i, value) for i in range(4)]
    assert reason(csv_bytes(["id", "target"], rows), answers, metric) == expected


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            ",id,target",
            "'', id, target; expected id, target; the first column has no name, it is the index of the table: write it "
            "with index=False",
        ),
        (
            "Unnamed: 0,id,target",
            "Unnamed: 0, id, target; expected id, target; the first column has no name, it is the index of the table: "
            "write it with index=False",
        ),
        (",target", "'', target; expected id, target; the first column has no name, name it id"),
        (
            ",0",
            "'', 0; expected id, target; the first column has no name, it is the index of the table: write it with "
            "index=False",
        ),
        ("id;target", "'id;target'; expected id, target; separate the columns with commas"),
        ("id\ttarget", "'id\\ttarget'; expected id, target; separate the columns with commas"),
        ('id,"tar\nget"', "id, 'tar\\nget'; expected id, target"),
        ('id,"a, b"', "id, 'a, b'; expected id, target"),
        ("id,target,", "id, target, ''; expected id, target"),
        ("id,target,target", "id, target, target; expected id, target"),
        ("id,\u202etarget", "id, '\\u202etarget'; expected id, target"),
        ("id," + "a" * 90, f"id, '{'a' * 29}...{'a' * 19}'; expected id, target"),
    ],
)
def test_wrong_columns_are_named_with_what_to_do(answers, header, told):
    assert reason(f"{header}\n0,10,3\n".encode(), answers, "mae") == f"its columns are {told}"


def test_a_quote_that_is_never_closed_is_said(answers):
    assert reason(b'id,"target\n10,1\n', answers, "mae") == "it is not CSV: a quote in its header is never closed"


def test_an_id_is_shown_on_one_line(answers_file):
    answers = answers_file('id,target\n"a\nb",1\n"c,d",2\n')
    twice = b'id,target\n"a\nb",1\n"a\nb",2\n'
    assert reason(twice, answers, "mae") == "the id 'a\\nb' occurs 2 times"
    unknown = b'id,target\n"a\nb",1\n"c\n d",2\n'
    assert reason(unknown, answers, "mae") == "row 2 has the id 'c\\n d', which is not in the test data"


def test_names_of_columns_may_hold_line_breaks_and_quotes(answers_file):
    answers = answers_file('id,target\n1,"a\nb"\n2,"say ""c, d"""\n')
    submission = b'id,"a\nb","say ""c, d"""\n1,0.5,0.5\n\n2,0.75,0.25\n'
    assert score(submission, answers, "log_loss") == pytest.approx(-np.log([0.5, 0.25]).mean())
    assert reason(submission + b"3\n", answers, "log_loss") == "row 3 has 1 columns, not 3"


# Answers


def test_a_task_is_graded_against_its_private_answers(answers):
    folder = answers.parent
    answers.rename(folder / "answers.csv")
    task = Task("t", "k", "held_in", "mae", "minimize", 1.0, 1.0, 0.0, "", "", "", folder, folder)
    assert grade(task, b"id,target\n10,3\n11,1\n12,1\n13,2\n") == 0.5


def test_answers_that_are_written_again_are_read_again(answers):
    perfect = b"id,target\n10,3\n11,1\n12,1\n13,0\n"
    assert score(perfect, answers, "mae") == 0.0
    stamp = answers.stat()
    answers.write_bytes(b"id,target\n10,3\n11,1\n12,1\n13,4\n")
    os.utime(answers, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 10))
    assert score(perfect, answers, "mae") == 1.0


@pytest.mark.parametrize(
    ("text", "metric", "columns", "fault"),
    [
        ("key,target\n1,1\n2,2\n", "mae", (), "its columns are key, target; expected id, target"),
        ("id,y\n1,1\n2,2\n", "mae", (), "its columns are id, y; expected id, target"),
        ("id,target\n", "mae", (), "it has 0 rows with 0 different ids"),
        ("id,target\n1,1\n1,2\n", "mae", (), "it has 2 rows with 1 different ids"),
        ("id,target\n1,1\n2,\n", "mae", (), "a prediction is missing or is not a number: '' in row 2"),
        ("id,a,b\n1,x,y\n", "accuracy", ("a", "b"), "it has 2 columns of labels; expected one"),
        ("id,a,b\n1,x y,y\n", "map_at_5", ("a", "b"), "it has 2 columns of rankings; expected one"),
        ("id,target\n1,a\n2,a\n", "log_loss", (), "its labels are a; expected some of a, at least two"),
        ("id,kind\n1,a\n2,c\n", "log_loss", ("a", "b"), "its labels are a, c; expected some of a, b, at least two"),
        ("id,p\n1,0\n2,0.5\n", "log_loss", ("p",), "its labels are 0, 0.5; expected some of 0, 1, at least two"),
        (
            "id,a,b\n1,0,1\n2,1,1\n",
            "log_loss",
            ("a", "b"),
            "a row does not have 1 in exactly one column and 0 in the others",
        ),
        ("id,a,b\n1,0,1\n2,1,0\n", "log_loss", (), "its columns are id, a, b; expected id, target"),
    ],
)
def test_wrong_answers_are_no_fault_of_the_submission(answers_file, text, metric, columns, fault):
    with pytest.raises(ValueError) as caught:
        score(b"id,target\n1,1\n2,2\n", answers_file(text), metric, Submission("id", columns))
    assert not isinstance(caught.value, InvalidSubmission) and str(caught.value).endswith(f": {fault}")


@pytest.mark.parametrize(("metric", "text"), [("auc", "1,1\n2,1\n"), ("qwk", "1,1\n2,1\n"), ("pearson", "1,3\n2,3\n")])
def test_answers_that_no_prediction_can_meet_are_no_fault_of_the_submission(answers_file, metric, text):
    with pytest.raises(ValueError, match=f"{metric} is undefined") as caught:
        score(b"id,target\n1,1\n2,2\n", answers_file(f"id,target\n{text}"), metric)
    assert not isinstance(caught.value, InvalidSubmission)
