"""The lines of an import about parts of conversations that it leaves out or that cannot be learned from."""

import json
from pathlib import Path

import pytest

from rollout.dataset.__main__ import main
from rollout.dataset.sharegpt import read_sharegpt
from rollout.storage.trajectories import read_trajectories, write_trajectories
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import Outcome
from tasks.naming import Names
from tasks.response import FIELDS, format_response
from tasks.system_text import system_text

ANSWER = format_response(dict.fromkeys(FIELDS[:4], "Fine."), Action(grammar.FINAL_ANSWER, {"final_answer": "a"}))


def conversation(*turns: tuple[str, str], **keys: object) -> dict:
    told = [{"from": speaker, "value": text} for speaker, text in turns or (("human", "Do it."), ("gpt", ANSWER))]
    return {"conversations": told, **keys}


def imported(tmp_path: Path, capsys, *records: dict, options: tuple[str, ...] = ()) -> tuple[int, list[str], str]:
    """Return exit code, lines and error of importing the records to `tmp_path/taken`."""
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
    code = main(["import", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "taken"), *options])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_own_system_texts_are_counted(tmp_path: Path, capsys) -> None:
    own = [conversation(system="You are a pirate.")] * 20
    own += [conversation(("system", "You are a pirate."), ("human", "Do it."), ("gpt", ANSWER))] * 17
    ours = [conversation(system=system_text("brief", 100)), conversation(), conversation(system="")]
    code, lines, _ = imported(tmp_path, capsys, *own, *ours)
    assert code == 0 and lines[0] == (
        "37 of 40 conversations have their own system text, which is dropped: the policy reads the one that the "
        "run's section `prompt` chooses"
    )
    assert len(lines) == 2 and lines[1].startswith("40 trajectories in")


def test_what_an_export_wrote_is_imported_without_a_remark(tmp_path: Path, capsys) -> None:
    code, lines, _ = imported(
        tmp_path, capsys, *[conversation(system=system_text("full", 100), id=str(i), task="a") for i in range(3)]
    )
    assert code == 0 and len(lines) == 1


def test_keys_that_an_import_does_not_use_are_counted(tmp_path: Path, capsys) -> None:
    record = conversation(tools="[]")
    record["conversations"][1] |= {"weight": 0, "loss": False}
    code, lines, _ = imported(tmp_path, capsys, record, record, conversation())
    assert code == 0
    assert lines[0].startswith("keys of conversations that are not used: 2 times 'tools'")
    assert lines[1].startswith(
        "keys of turns that are not used: 2 times 'loss', 2 times 'weight'; every answer is trained"
    )


def test_keys_that_say_nothing_are_not_counted_and_many_are_cut(tmp_path: Path, capsys) -> None:
    records = [
        conversation(tools=None, source="", messages=None),
        conversation(tools=None, **dict.fromkeys("abcdefghij", 1)),
    ]
    code, lines, _ = imported(tmp_path, capsys, *records)
    assert code == 0 and len(lines) == 2
    assert lines[0].startswith("keys of conversations that are not used: 1 times 'a', 1 times 'b', ")
    assert lines[0].endswith("1 times 'h' and 2 other keys")


def test_empty_texts_and_open_ends_are_counted(tmp_path: Path, capsys) -> None:
    chat = [("human", " "), ("gpt", ANSWER), ("human", "And?")]
    code, lines, _ = imported(tmp_path, capsys, conversation(*chat), conversation(("human", "Do it."), ("gpt", "")))
    assert code == 0
    assert lines[:3] == [
        "1 of 2 conversations end with a turn of the human, which nothing answers",
        "1 turns of the human have an empty text",
        "1 turns of the agent have an empty text",
    ]
    assert lines[3].startswith("1 of 2 answers are no valid action: the policy would learn to answer like this")


def test_conversations_without_actions_are_imported_only_if_asked(tmp_path: Path, capsys) -> None:
    records = [conversation(("human", "Hello."), ("gpt", "Hello, how can I help?"))] * 19 + [conversation()]
    code, _, error = imported(tmp_path, capsys, *records)
    assert code == 2 and error.count("\n") == 1
    assert "19 of 20 answers are no valid action, more than --max-invalid-share 0.9" in error
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
    code, lines, _ = imported(tmp_path, capsys, *records, options=("--max-invalid-share", "1"))
    assert code == 0 and lines[0].startswith("19 of 20 answers are no valid action")
    assert len(read_trajectories(tmp_path / "taken")) == 20


@pytest.mark.parametrize("share", ["nan", "-0.1", "2"])
def test_a_share_out_of_range_is_refused(tmp_path: Path, capsys, share: str) -> None:
    code, _, error = imported(tmp_path, capsys, conversation(), options=(f"--max-invalid-share={share}",))
    assert code == 2 and error.endswith(f"--max-invalid-share: got {share}, expected a number from 0 to 1\n")


def test_system_texts_in_parts_and_a_second_list_of_turns_are_counted(tmp_path: Path, capsys) -> None:
    parts = [{"type": "text", "text": "You are a pirate."}]
    both = conversation(messages=[{"role": "user", "content": "Something else."}])
    code, lines, _ = imported(tmp_path, capsys, both, conversation(system=parts), conversation(system=["A", "B"]))
    assert code == 0 and lines[0].startswith("2 of 3 conversations have their own system text")
    assert lines[1] == "keys of conversations that are not used: 1 times 'messages'"


def test_mixed_keys_and_texts_in_parts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(conversation()))
    (plain,) = read_sharegpt(path)
    parts = [{"type": "text", "text": "Do "}, {"type": "text", "text": "it."}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": ANSWER}]
    for record in ({"conversations": turns}, {"conversations": [], "messages": turns}):
        path.write_text(json.dumps(record))
        assert list(read_sharegpt(path)) == [plain]


@pytest.mark.parametrize("content", [None, [{"type": "image_url", "image_url": "a"}], [], 3])
def test_a_turn_without_a_text_is_named(tmp_path: Path, content: object) -> None:
    turns = [{"role": "user", "content": "Do it."}, {"role": "assistant", "content": content, "tool_calls": [{}]}]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": turns}]))
    with pytest.raises(ValueError, match=r"conversation 1 has turn 2 from 'gpt' with .+, expected a text"):
        list(read_sharegpt(tmp_path / "a.json"))


@pytest.mark.parametrize("data", [json.dumps([conversation()]).encode("utf-16"), b"\x1f\x8b\x08", b'[{"id": "\xe9"}]'])
def test_a_file_that_is_no_utf8_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.json is not UTF-8 text; save it as UTF-8"):
        list(read_sharegpt(tmp_path / "a.json"))


@pytest.mark.parametrize("text", ["", "[]", "\n\n"])
def test_a_file_without_conversations_is_refused(tmp_path: Path, capsys, text: str) -> None:
    (tmp_path / "data.jsonl").write_text(text)
    assert main(["import", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "taken")]) == 2
    assert "has no conversations; nothing is imported" in capsys.readouterr().err
    assert not (tmp_path / "taken").exists()


def test_the_form_of_openai_is_imported_too(tmp_path: Path) -> None:
    roles = {"human": "user", "gpt": "assistant", "system": "developer"}
    turns = [("system", "Be good."), ("human", "Do it."), ("gpt", ANSWER)]
    messages = [{"role": roles[speaker], "content": text} for speaker, text in turns]
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    (theirs,) = read_sharegpt(path)
    path.write_text(json.dumps(conversation(*turns)))
    assert list(read_sharegpt(path)) == [theirs] and theirs.steps[0].action == grammar.FINAL_ANSWER
    assert theirs.steps[0].feedback.outcome is Outcome.NON_EDIT


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "turn 2 from 'gpt' with null, expected a text"),
        ({"role": "tool", "content": "4"}, "turn 2 from 'tool', expected a text from 'gpt'"),
        ({"role": ["assistant"], "content": "4"}, "turn 2 from .'assistant'., expected a text from 'gpt'"),
    ],
)
def test_a_message_that_is_no_text_of_the_agent_is_named(tmp_path: Path, turn: dict, said: str) -> None:
    record = {"messages": [{"role": "user", "content": "Do it."}, turn]}
    (tmp_path / "data.jsonl").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"conversation 1 has {said}"):
        list(read_sharegpt(tmp_path / "data.jsonl"))


def test_trajectories_without_an_action_are_counted_by_an_export(tmp_path: Path, capsys) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(conversation()))
    (whole,) = read_sharegpt(tmp_path / "data.jsonl")
    empty = Trajectory("empty", "toy", 0, Names("", "", "", ""), "Do it.", (), (), "context_limit")
    for name, found, code, said in (
        ("some", [whole, empty], 0, "1 conversations; 1 trajectories without an action are left out"),
        ("none", [empty], 2, "has 1 trajectories, none with an action to export"),
    ):
        options = "--out", str(tmp_path / f"{name}.jsonl"), "--system", "brief"
        write_trajectories(tmp_path / name / "trajectories" / "part-00000.parquet", found)
        assert main(["export", str(tmp_path / name), *options]) == code
        output = capsys.readouterr()
        assert said in (output.err if code else output.out) and (tmp_path / f"{name}.jsonl").exists() == (code == 0)
