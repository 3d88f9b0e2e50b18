"""The texts that a model reads, to the byte: they are part of every prompt that weights were trained on."""

from pathlib import Path

from tasks.feedback import parse_status_line, status_line
from tasks.naming import Names
from tasks.prompt import messages, parse_ideas, problem_text
from tasks.state import State
from tasks.system_text import system_text
from tasks.task import Instance, Task

BRIEF = """\
You are a machine learning engineer. Improve the test score of a script, one action at a time.

Actions and their input:
List Files {"dir_path": folder}
Copy File {"source": file, "destination": file}
Inspect Script Lines {"script_name": file, "start_line_number": number, "end_line_number": number} (100 lines at most)
Execute Script {"script_name": file}
Understand File {"file_name": file, "things_to_look_for": text}
Edit Script (AI) {"script_name": file, "edit_instruction": text, "save_name": file} (edits, saves, runs)
Final Answer {"final_answer": text}

Answer with six fields, each on a line: Reflection: (on the last result), Research Plan and Status: (best so far), \
Fact Check: (what is known), Thought: (what to do), Action: (its name), Action Input: (a JSON object with its keys)"""

TASK = Task(
    name="toy",
    kind="tabular-regression",
    split="held_in",
    metric="mae",
    direction="minimize",
    m_init=2.0,
    validation_init=1.25,
    m_best=0.0,
    m_best_source="exact",
    problem="Predict y from {train_file} for {test_file}; start from {script}.",
    script="",
    public=Path("public"),
    private=Path("private"),
)
INSTANCE = Instance(TASK, Names("maple", "birch_train.csv", "birch_test.csv", "cedar.py"))


def test_the_brief_system_message_lists_the_grammar_in_this_text():
    assert system_text("brief", 100) == BRIEF


def test_the_chat_starts_with_system_and_problem_and_appends_turns():
    problem = (
        "Research problem maple: Predict y from birch_train.csv for birch_test.csv; start from cedar.py.\n"
        "Best so far: cedar.py 1.2500"
    )
    assert problem_text(INSTANCE) == problem
    state = State(problem).then("response", "feedback")
    assert [(one["role"], one["content"]) for one in messages(state, "the system message")] == [
        ("system", "the system message"),
        ("user", problem),
        ("assistant", "response"),
        ("user", "feedback"),
    ]


def test_ideas_read_back_from_the_problem():
    ideas = ["Use a forest (small).", "Scale the columns."]
    text = problem_text(INSTANCE, ideas)
    assert text.splitlines()[1] == (
        "Try these ideas in your first step: (1) Use a forest (small). (2) Scale the columns."
    )
    assert parse_ideas(text) == ideas and parse_ideas(problem_text(INSTANCE)) == []


def test_the_status_line_reads_back():
    assert status_line("oak.py", -0.71234) == "Best so far: oak.py -0.7123"
    assert parse_status_line(status_line("oak.py", -0.71234)) == ("oak.py", "-0.7123")
    assert parse_status_line("So. Best so far: oak.py 0.5000. Next trees.") == ("oak.py", "0.5000")
    assert parse_status_line("Best so far: nothing") is None
