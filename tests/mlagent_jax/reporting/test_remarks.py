"""Remarks about counts: every count is said, and a large share says what it means."""

from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.reporting.remarks import Remark, Rule, remarks

RULE = Rule("expert.empty", ("expert.answers",), "answers have no text", 0.1, "switch reasoning off")


def test_a_share_above_the_limit_warns_with_its_advice() -> None:
    assert remarks([RULE], {"expert": {"empty": 2, "answers": 1000}}) == [
        Remark("2 of 1,000 answers have no text", is_warning=False)
    ]
    assert remarks([RULE], {"expert": {"empty": 101, "answers": 1000}}) == [
        Remark("101 of 1,000 answers have no text: switch reasoning off", is_warning=True)
    ]


def test_what_did_not_happen_or_was_not_counted_is_not_said() -> None:
    assert remarks([RULE], {"expert": {"empty": 0, "answers": 9}}) == []
    assert remarks([RULE], {"gain": 0.5, "expert": None, "remarks": []}) == []


def test_the_whole_can_be_the_sum_of_counts() -> None:
    rule = Rule("lost", ("lost", "kept"), "episodes were lost", 0.0, "see the log")
    assert remarks([rule], {"lost": 1, "kept": 3})[0].text == "1 of 4 episodes were lost: see the log"


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1))
def test_a_count_is_said_if_and_only_if_it_is_not_zero(num: int, rest: int, max_share: float) -> None:
    rule = Rule("num", ("num", "rest"), "are bad", max_share, "stop")
    found = remarks([rule], {"num": num, "rest": rest})
    assert len(found) == (num > 0)
    for remark in found:
        assert f"{num:,} of {num + rest:,} are bad" in remark.text
        assert remark.is_warning == (num > max_share * (num + rest)) == remark.text.endswith(": stop")
