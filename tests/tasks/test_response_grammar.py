"""The grammar of a response: all that it generates is exact, and all that `format_response` writes is generated."""

import random

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.action import ACTIONS, Action
from tasks.response import FIELDS, format_response, parse_response
from tasks.response_grammar import CHARACTERS_PER_TOKEN, END_TOKENS, FILE_CHARACTERS, Bounds, response_grammar

MAX_TOKENS = 400
BOUNDS = Bounds.within(MAX_TOKENS)
BYTES = llguidance.LLTokenizer("byte")
END = BYTES.eos_token
THOUGHTS = {label: "Something is thought." for label in FIELDS[:4]}
EDIT = format_response(
    THOUGHTS,
    Action("Edit Script (AI)", {"script_name": "a.py", "edit_instruction": "Use a forest.", "save_name": "b.py"}),
)
INSPECT = {"script_name": "a.py", "start_line_number": "1", "end_line_number": "20"}
LINES = format_response(THOUGHTS, Action("Inspect Script Lines", INSPECT))


def matcher(grammar: str) -> llguidance.LLMatcher:
    """Returns llguidance's matcher, given the grammar as vLLM gives it."""
    found = llguidance.LLMatcher(BYTES, llguidance.grammar_from("grammar", grammar))
    assert not found.get_error(), found.get_error()
    return found


def generate(rng: random.Random, most: int) -> str:
    """Returns a random response; each byte is drawn from those that the grammar allows, quotes and line ends rarely.

    Args:
        rng: The source of the draws.
        most: Bytes after which every field that may end does so.
    """
    walker, written = matcher(response_grammar(MAX_TOKENS)), bytearray()
    while not walker.is_stopped():
        mask = walker.compute_logit_bias()
        allowed = [token for token, bias in enumerate(mask) if bias]
        ends = [token for token in allowed if token in (END, *b'"\n')]
        token = rng.choice(ends if ends and (len(written) > most or rng.random() < 0.02) else allowed)
        walker.consume_token(token)
        if token != END:
            written.append(token)
    return written.decode()


def generates(text: str, grammar: str = response_grammar(MAX_TOKENS)) -> bool:
    """Whether the grammar generates the text and ends there."""
    walker = matcher(grammar)
    tokens = list(text.encode())
    return walker.validate_tokens(tokens) == len(tokens) and walker.consume_tokens(tokens) and walker.is_accepting()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_grammar_generates_is_an_exact_action(seed: int):
    text = generate(random.Random(seed), most=100 * (seed % 8))
    parsed = parse_response(text)
    assert isinstance(parsed.action, Action), text
    assert parsed.is_exact
    assert len(text) <= CHARACTERS_PER_TOKEN * (MAX_TOKENS - END_TOKENS) + text.count("\\")


def test_every_action_is_generated():
    names = {parse_response(generate(random.Random(seed), most=0)).action.name for seed in range(100)}  # pyright: ignore
    assert names == set(ACTIONS)


LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)


@given(st.sampled_from(sorted(ACTIONS)), st.data())
def test_what_format_response_writes_within_the_bounds_is_generated(name: str, data: st.DataObject):
    def value(kind: str) -> str:
        if kind == "number":
            return str(data.draw(st.integers(0, 10**9 - 1)))
        least, most = (0, BOUNDS.text) if kind == "text" else (1, FILE_CHARACTERS)
        return data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most))

    thoughts = {label: data.draw(LINE)[: BOUNDS.thought] for label in THOUGHTS}
    action = Action(name, {key: value(kind) for key, kind in ACTIONS[name].arguments.items()})
    assert generates(format_response(thoughts, action))


def test_the_longest_texts_are_generated_and_longer_ones_are_not():
    def edit(thought: int, file: int, text: int) -> str:
        arguments = {"script_name": file * "a", "edit_instruction": text * "b", "save_name": file * "c"}
        return format_response(dict.fromkeys(THOUGHTS, thought * "d"), Action("Edit Script (AI)", arguments))

    most = BOUNDS.thought, FILE_CHARACTERS, BOUNDS.text
    assert generates(edit(*most))
    assert len(edit(*most)) <= CHARACTERS_PER_TOKEN * (MAX_TOKENS - END_TOKENS) < 1.1 * len(edit(*most))
    for longer in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not generates(edit(*(bound + one for bound, one in zip(most, longer, strict=True))))


PLANTED = {
    "label in another case": EDIT.replace("Thought:", "thought:"),
    "label in bold": EDIT.replace("Thought:", "**Thought:**"),
    "missing field": EDIT.replace("Fact Check: Something is thought.\n", ""),
    "empty field": EDIT.replace("Fact Check: Something is thought.", "Fact Check: "),
    "field of two lines": EDIT.replace("Thought: Some", "Thought: One.\nSome"),
    "Windows line ends": EDIT.replace("\n", "\r\n"),
    "unknown action": EDIT.replace("Edit Script (AI)", "Edit Script"),
    "keys of another action": EDIT.replace("Edit Script (AI)", "Execute Script"),
    "missing key": EDIT.replace(', "save_name": "b.py"', ""),
    "another order of keys": LINES.replace(
        '"start_line_number": 1, "end_line_number": 20', '"end_line_number": 20, "start_line_number": 1'
    ),
    "more keys": EDIT.replace('"b.py"}', '"b.py", "more": "x"}'),
    "empty file name": EDIT.replace('"a.py"', '""'),
    "code fence": EDIT.replace("{", "```json\n{"),
    "text after the object": f"{EDIT}\nIt runs.",
    "line end after the object": f"{EDIT}\n",
    "line break in a string": EDIT.replace("a forest", "a\nforest"),
    "unknown escape": EDIT.replace("a forest", r"a \forest \x41"),
    "quote in a string": EDIT.replace("a forest", 'a "forest"'),
    "half of a surrogate pair": EDIT.replace("a forest", r"\ud800"),
    "leading zero": LINES.replace(": 1,", ": 01,"),
    "negative number": LINES.replace(": 1,", ": -1,"),
    "number as text": LINES.replace(": 1,", ': "1",'),
    "number of ten digits": LINES.replace(": 1,", ": 1000000000,"),
}


@pytest.mark.parametrize("response", PLANTED.values(), ids=PLANTED)
def test_other_texts_are_not_generated(response: str):
    assert response not in (EDIT, LINES)
    assert not generates(response)


def test_limits_that_leave_no_room_are_refused_with_the_least_that_does():
    with pytest.raises(
        ValueError, match="^100 tokens are too few for a constrained response; expected at least"
    ) as stop:
        response_grammar(100)
    least = int(str(stop.value).split()[-1])
    assert Bounds.within(least).thought
    with pytest.raises(ValueError, match=f"expected at least {least}$"):
        Bounds.within(least - 1)


def test_xgrammar_reads_the_same_grammar():
    import xgrammar

    tokens = xgrammar.TokenizerInfo([bytes([byte]) for byte in range(256)] + [b"</s>"], stop_token_ids=[256])
    compiled = xgrammar.GrammarCompiler(tokens).compile_grammar(response_grammar(MAX_TOKENS))

    def accepts(text: str) -> bool:
        walker = xgrammar.GrammarMatcher(compiled)
        return walker.accept_string(text) and walker.accept_token(256)

    assert accepts(EDIT) and accepts(LINES)
    for seed in range(8):
        assert accepts(generate(random.Random(seed), most=200))
    assert not [name for name, response in PLANTED.items() if accepts(response)]
