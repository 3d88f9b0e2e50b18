"""The system message, which says what the agent is, which actions there are, and how it responds."""

import re
from typing import Literal, get_args

from tasks.action import ACTIONS, EDIT, Action
from tasks.response import ACTION, ACTION_INPUT, FACT_CHECK, REFLECTION, STATUS, THOUGHT, format_response

Kind = Literal["full", "brief"]

FULL = """\
You are a machine learning engineer. You improve a Python script so that its predictions score better on a hidden test \
set. You work in steps: each response carries one action, and the environment replies with its result.

# Rules
- The first message has the task, its metric, and the names of its files. Use these names; those below are examples.
- The training and test data are read-only.
- A script trains a model, measures it on held-out rows of the training data, and prints that score as \
`validation <metric>: <number>`. Then it writes its predictions for the test data to submission.csv. A run that leaves \
no submission.csv is an error.
- Scripts run in a sandbox without a network, so nothing can be downloaded or installed. Time and memory are limited.
- You write instructions, not code. Another model makes the edit. It sees only the script and your instruction, so the \
instruction must say everything: what to change, the names and values to use, and what to keep. Ask for one change at \
a time.
- Use a new save_name for each edit, so that the best script is not overwritten.
- Every result ends with the best script so far and its validation score. State only scores that a result shows.

# Actions
{actions}

# Response format
Write these six fields in this order. Start each on a new line with its label, without Markdown, and write nothing \
after the last field. A response in another form is invalid and does nothing.
{fields}

# Example of a whole response
{example}"""

BRIEF = """\
You are a machine learning engineer. Improve the test score of a script, one action at a time.

Actions and their input:
{actions}

Answer with six fields, each on a line: Reflection: (on the last result), Research Plan and Status: (best so far), \
Fact Check: (what is known), Thought: (what to do), Action: (its name), Action Input: (a JSON object with its keys)"""

FIELD_TEXTS = {
    REFLECTION: "what the last result shows; after an error, its cause",
    STATUS: "the numbered plan, what is done and with which score, and the next step",
    FACT_CHECK: "what results have shown, and what is only a guess",
    THOUGHT: "what you do now, and why",
    ACTION: "the name of one action, exactly as above",
    ACTION_INPUT: "a JSON object on one line with exactly the keys of the action",
}
EXAMPLE_THOUGHTS = {
    REFLECTION: "train.py printed validation rmse: 0.3120. It fits LinearRegression to the numeric columns.",
    STATUS: "1. Run the initial script: done, 0.3120. 2. Replace the linear model: now. 3. Encode the text columns.",
    FACT_CHECK: "The output of train.py shows 0.3120. That boosting scores better is a guess.",
    THOUGHT: "Another model is the change with the largest effect, so I change only the model.",
}
EXAMPLE_EDIT = Action(
    EDIT,
    {
        "script_name": "train.py",
        "edit_instruction": "Replace LinearRegression with HistGradientBoostingRegressor(max_iter=300, "
        "learning_rate=0.05, random_state=0) from sklearn.ensemble. Keep the data split, the printed validation line, "
        "and the writing of submission.csv.",
        "save_name": "train_boosting.py",
    },
)


def system_text(kind: Kind, script_lines: int) -> str:
    """Return the system message, which is generated from the table of actions.

    Args:
        kind: `full` explains every action and field, with examples; `brief` names them.
        script_lines: The maximum number of lines that the agent can inspect with one action.
    """
    if kind == "brief":
        return BRIEF.format(actions="\n".join(spec.usage(script_lines) for spec in ACTIONS.values()))
    return FULL.format(
        actions="\n\n".join(spec.explanation(script_lines) for spec in ACTIONS.values()),
        fields="\n".join(f"{label}: {text}" for label, text in FIELD_TEXTS.items()),
        example=example_response(),
    )


def is_system_text(text: str) -> bool:
    """Return whether `text` is a system message, of either kind and with any number of lines."""
    lines = re.search(r"\(([0-9]{1,9}) lines at most\)", text)
    return lines is not None and text in (system_text(kind, int(lines[1])) for kind in get_args(Kind))


def example_response() -> str:
    """Return the response that the full message gives as an example."""
    return format_response(EXAMPLE_THOUGHTS, EXAMPLE_EDIT)
