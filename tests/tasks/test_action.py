"""The table of actions."""

from tasks.action import ACTIONS, ends_trajectory, is_edit, plain_instruction


def test_the_seven_actions_have_the_papers_names_and_arguments():
    assert {name: set(spec.arguments) for name, spec in ACTIONS.items()} == {
        "List Files": {"dir_path"},
        "Copy File": {"source", "destination"},
        "Inspect Script Lines": {"script_name", "start_line_number", "end_line_number"},
        "Execute Script": {"script_name"},
        "Understand File": {"file_name", "things_to_look_for"},
        "Edit Script (AI)": {"script_name", "edit_instruction", "save_name"},
        "Final Answer": {"final_answer"},
    }


def test_the_table_says_which_actions_edit_run_and_end():
    assert [name for name, spec in ACTIONS.items() if spec.is_edit] == ["Edit Script (AI)"]
    assert [name for name, spec in ACTIONS.items() if spec.runs_script] == ["Execute Script", "Edit Script (AI)"]
    assert [name for name, spec in ACTIONS.items() if spec.ends_trajectory] == ["Final Answer"]
    assert is_edit("Edit Script (AI)") and not is_edit("") and not is_edit("Sing")
    assert ends_trajectory("Final Answer") and not ends_trajectory("") and not ends_trajectory("Execute Script")
    assert {name: spec.input_file for name, spec in ACTIONS.items()} == {
        "List Files": None,
        "Copy File": "source",
        "Inspect Script Lines": "script_name",
        "Execute Script": "script_name",
        "Understand File": "file_name",
        "Edit Script (AI)": "script_name",
        "Final Answer": None,
    }


def test_instructions_compare_without_case_and_spacing():
    arguments = {"script_name": "a.py", "edit_instruction": " Use  a\nForest. ", "save_name": "b.py"}
    assert plain_instruction("Edit Script (AI)", arguments) == "use a forest."
    assert plain_instruction("Execute Script", {"script_name": "a.py"}) == ""
    assert plain_instruction("", {}) == ""
