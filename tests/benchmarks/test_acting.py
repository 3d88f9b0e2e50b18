"""The arithmetic and the tables of the acting benchmark on a few responses."""

from typing import Any

from benchmarks.acting import KINDS, markdown, summarize
from tasks.action import Action
from tasks.response import FIELDS, format_response

RUN = format_response(dict.fromkeys(FIELDS[:4], "Fine."), Action("Execute Script", {"script_name": "a.py"}))


def piece(*texts: str, seconds: float = 2.0) -> dict[str, Any]:
    return {"seconds": seconds, "responses": [{"text": text, "num_tokens": 50, "end": "stop"} for text in texts]}


def test_shares_are_of_all_responses_and_leniency_of_the_valid_ones() -> None:
    decorated, unknown = f"{RUN}\nThat is all.", RUN.replace("Execute", "Undo")
    cut = {"seconds": 1.0, "responses": [{"text": RUN[:9], "num_tokens": 400, "end": "length"}]}
    found = summarize([piece(RUN, decorated), piece(unknown), cut], [0, 2, 0, 1])
    assert (found["num_responses"], found["num_valid"], found["valid"]["mean"]) == (4, 2, 0.5)
    assert (found["valid_first"]["mean"], found["valid_first"]["high"]) == (0.5, 0.9055)
    assert (found["lenient"], found["cut"]) == (0.5, 0.25)
    assert {kind: share for kind, share in found["invalid"].items() if share} == {
        "missing_field": 0.25,
        "unknown_action": 0.25,
    }
    assert (found["mean_tokens"], found["seconds"], found["tokens_per_second"]) == (137.5, 5.0, 110.0)
    assert summarize([piece("nothing")], [3])["lenient"] is None


def test_every_model_has_a_line_for_each_kind_of_sampling() -> None:
    origin = {"commit": "abc", "command": "python", "machine": {"cores": 2, "processor": "some"}}
    sizes = {"num_states": 1, "num_tasks": 1, "mean_prompt_tokens": 9.0, "num_concurrent": 1, "dtype": "float32"}
    figures = {**origin, **sizes, "free": summarize([piece("nothing")], [1]), "grammar": summarize([piece(RUN)], [0])}
    words = markdown({"small": figures, "large": figures})
    for name in ("small", "large"):
        assert [line.split(" | ")[1] for line in words.splitlines() if line.startswith(f"| {name}")] == 3 * list(KINDS)
    assert "| small | grammar | 1 of 1 (100.0%) | 20.6% to 100.0% | 100% | 0% | 0.0% |" in words
