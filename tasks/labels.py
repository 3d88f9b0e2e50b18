"""Compare labels exactly: as numbers of any size, as truth values, or as text.

Labels never become floating-point numbers: account numbers above 2^53 would fall together.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.csv_columns import InvalidSubmission, to_numbers

MAX_RANKED = 5  # labels in a ranking
# A decimal number. A power of more than 18 digits would not fit into 64 bits.
NUMERAL = (
    r"^(?:\+|(?P<sign>-))?(?:(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]*))?|\.(?P<bare_part>[0-9]+))"
    r"(?:[eE]\+?(?P<power>-?[0-9]{1,18}))?$"
)
ZERO, ONE = "0", "1e0"  # the exact values of 0 and 1
TRUTH_VALUES = {"false", "true"}


def to_labels(cells: pa.ChunkedArray, classes: Sequence[str]) -> np.ndarray:
    """Return a number for each label, equal for equal labels, `[B]`. Raises InvalidSubmission.

    If all `classes` are numbers, so must be all labels, and they compare by their exact values. But classes that are
    the same number in different writing, such as 007 and 7, stay apart: only their own text is equal to them. Other
    labels compare as text; True and False may be written in any case, or as 1 and 0.

    The labels 0 and 1 become 0 and 1; all other labels become larger numbers.

    Args:
        cells: The labels, `[B]`, as text.
        classes: The different labels of the answers.
    """
    places, texts = _distinct(cells)
    known = pa.array(classes, pa.string())
    values = _values(texts, known)
    if values.null_count:
        to_numbers([cells])  # raises, with the reason for the first such label
        raise InvalidSubmission("a prediction is missing or is not a number")
    if texts.index("").as_py() >= 0:
        raise InvalidSubmission("a prediction is missing")
    return _numbered(texts, values, known)[places]


def to_rankings(cells: pa.ChunkedArray, classes: Sequence[str]) -> np.ndarray:
    """Return the ranked labels of each row as the numbers of `to_labels`, `[B, 5]`, padded with -1.

    A label that is no number is a wrong one, even if all `classes` are numbers. Raises InvalidSubmission.
    """
    rows = [cell.split() for cell in cells.to_pylist()]
    if not all(rows):
        raise InvalidSubmission("a prediction is missing")
    sizes = np.array([len(row) for row in rows])
    if sizes.max() > MAX_RANKED:
        raise InvalidSubmission(f"a row ranks {sizes.max()} labels; at most {MAX_RANKED} are allowed")
    places, texts = _distinct(pa.chunked_array([[label for row in rows for label in row]], pa.string()))
    known = pa.array(classes, pa.string())
    rankings = np.full((len(rows), MAX_RANKED), -1)
    rankings[np.arange(MAX_RANKED) < sizes[:, None]] = _numbered(texts, _values(texts, known), known)[places]
    return rankings


def exact_values(texts: pa.Array) -> pa.Array:
    """Return texts that are equal if and only if the numbers in `texts` are, `[B]`; null for what is no number.

    It is the number's sign, its digits without outer zeros, and its power of ten.
    """
    found = pc.call_function("extract_regex", [texts], pc.ExtractRegexOptions(NUMERAL))
    sign, whole, part, bare_part, power = found.flatten()
    part = _joined(part, bare_part)
    digits = pc.call_function("utf8_ltrim", [_joined(whole, part)], pc.TrimOptions("0"))
    short = pc.call_function("utf8_rtrim", [digits], pc.TrimOptions("0"))
    no_power = pc.call_function("equal", [power, pa.scalar("")])
    tens = pc.call_function("if_else", [no_power, pa.scalar("0"), power]).cast(pa.int64())
    tens = pc.call_function("subtract", [tens, _lengths(part)])
    tens = pc.call_function("add", [tens, pc.call_function("subtract", [_lengths(digits), _lengths(short)])])
    values = _joined(sign, short, pa.scalar("e"), tens.cast(pa.string()))
    return pc.call_function("if_else", [pc.call_function("equal", [short, pa.scalar("")]), pa.scalar(ZERO), values])


def _values(texts: pa.Array, classes: pa.Array) -> pa.Array:
    """Return what is compared of the labels `texts`, `[D]`; null for what is no number among numbers."""
    if exact_values(classes).null_count == 0:
        return exact_values(texts)
    if not {name.lower() for name in classes.to_pylist()} <= TRUTH_VALUES:
        return texts
    numbers = exact_values(texts).fill_null("")
    words = pc.call_function("utf8_lower", [texts])
    for number, word in ((ZERO, "false"), (ONE, "true")):
        is_number = pc.call_function("equal", [numbers, pa.scalar(number)])
        words = pc.call_function("if_else", [is_number, pa.scalar(word), words])
    return words


def _numbered(texts: pa.Array, values: pa.Array, classes: pa.Array) -> np.ndarray:
    """Return a number for each of the distinct labels, `[D]`: its place among the classes after 0 and 1, or a new one.

    Args:
        texts: The labels, `[D]`.
        values: What is compared of them, `[D]`.
        classes: The different labels of the answers.
    """
    of_classes = _values(classes, classes)
    counts = Counter(of_classes.to_pylist())
    shared = pa.array([value for value in counts if counts[value] > 1 and value not in TRUTH_VALUES], pa.string())
    of_classes, keys = _keys(classes, of_classes, classes, shared), _keys(texts, values, classes, shared)
    # The other labels follow the classes; each of them counts for the macro mean of F1.
    order = pa.array(dict.fromkeys([ZERO, ONE, *of_classes.to_pylist()]), pa.string())
    order = pa.chunked_array([order, keys.filter(pc.call_function("invert", [_is_in(keys, order)])).unique()])
    return pc.call_function("index_in", [keys], pc.SetLookupOptions(value_set=order)).to_numpy().astype(np.int64)


def _keys(texts: pa.Array, values: pa.Array, classes: pa.Array, shared: pa.Array) -> pa.Array:
    """Return texts that are equal for equal labels, `[D]`. A class with a `shared` value has its text only."""
    own = pc.call_function("and", [_is_in(texts, classes), _is_in(values, shared)])
    rest = pc.call_function("coalesce", [values, texts])
    return pc.call_function("if_else", [own, _joined(pa.scalar("="), texts), rest])


def _is_in(texts: pa.Array, among: pa.Array) -> pa.Array:
    return pc.call_function("is_in", [texts], pc.SetLookupOptions(value_set=among))


def _distinct(cells: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return the place of each cell among the distinct cells, `[B]`, and these, `[D]`."""
    encoded = cells.dictionary_encode().unify_dictionaries()
    places = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return places, encoded.chunk(0).dictionary


def _joined(*texts: pa.Array | pa.Scalar) -> pa.Array:
    return pc.call_function("binary_join_element_wise", [*texts, pa.scalar("")])


def _lengths(texts: pa.Array) -> pa.Array:
    return pc.call_function("binary_length", [texts]).cast(pa.int64())
