"""Packing gives the same rows as a simple implementation of first fit."""

from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.sft.packing import LOOK_AHEAD, cut, first_fit, size_of
from rollout.tokenizer.chat import Rendering

LENGTH = 40


def plainly(order: list[int], num_tokens: list[int], length: int) -> list[tuple[int, ...]]:
    """The rule in its plainest form: look at the next 32, take what fits."""
    waiting, rows = list(order), []
    while waiting:
        row: list[int] = []
        for index in waiting[:LOOK_AHEAD]:
            if sum(num_tokens[other] for other in row) + num_tokens[index] <= length:
                row.append(index)
                waiting.remove(index)
        rows.append(tuple(row))
    return rows


@given(num_tokens=st.lists(st.integers(1, LENGTH), max_size=120), rng=st.randoms(use_true_random=False))
def test_rows_are_those_of_the_plain_rule(num_tokens: list[int], rng) -> None:
    order = rng.sample(range(len(num_tokens)), len(num_tokens))
    rows = first_fit(order, num_tokens, LENGTH)
    assert rows == plainly(order, num_tokens, LENGTH)
    assert sorted(index for row in rows for index in row) == sorted(order)
    assert all(0 < sum(num_tokens[index] for index in row) <= LENGTH for row in rows)


@given(
    places=st.lists(st.integers(1, 60), max_size=8, unique=True).map(sorted), rest=st.integers(0, 5), length=st.just(30)
)
def test_size_is_that_of_the_cut_sequence(places: list[int], rest: int, length: int) -> None:
    spans = list(zip(places[::2], places[1::2], strict=False))
    sequence = Rendering(list(range((places or [0])[-1] + rest)), spans)
    found, size = cut(sequence, length), size_of(sequence, length)
    assert found.spans == [span for span in spans if span[1] <= length] == spans[: len(found.spans)]
    assert found.token_ids == sequence.token_ids[: len(found.token_ids)]
    assert len(found.token_ids) == (found.spans[-1][1] if found.spans else 0) == size.num_tokens <= length
    assert size.num_predictions == sum(end - start for start, end in found.spans)
    assert size.is_cut == (len(found.spans) < len(spans))
