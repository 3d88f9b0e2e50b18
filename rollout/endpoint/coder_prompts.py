"""The prompts of a coder model: worked examples of edits, the script with the instruction, and the error."""

from rollout.endpoint.edit_blocks import DIVIDER, REPLACE, SEARCH
from rollout.options import EditFormat
from tasks.prompt import Message

EDIT_PROMPTS: dict[EditFormat, str] = {
    "blocks": """\
Edit a Python script by search/replace blocks. The search part of a block copies the lines to change, exactly as they \
are in the script. The replace part has the lines that take their place. Every line that changes needs a block, also \
the imports of what you add.

```python
{source}
```

Instruction: {instruction}""",
    "script": """\
Edit a Python script. Answer with the whole edited script in one code block, and import what you add.

```python
{source}
```

Instruction: {instruction}""",
}
# Also after blocks that do not fit, because a model that failed at them rarely succeeds at the second attempt.
REPEAT_PROMPT = "This cannot be used: {error}. Answer with the whole edited script in one code block."
COMPLETE_PROMPTS: dict[EditFormat, str] = {
    "blocks": "Something is missing: {error}. Answer with the search/replace blocks that add it.",
    "script": REPEAT_PROMPT,
}
DESCRIBE_PROMPT = """\
Describe the file {name} in at most 40 words. Look for: {things_to_look_for}

{content}"""

# A small model follows examples in the chat rather than a description of the format. In both, lines are far apart.
EXAMPLE_SCRIPT = """\
import numpy as np
from sklearn.linear_model import LinearRegression

rows = np.loadtxt("rows.csv")
X, y = rows[:, 1:], rows[:, 0]
model = LinearRegression()
model.fit(X, y)
print(f"r2: {model.score(X, y):.4f}")
"""
# Instruction -> the replacements that it needs.
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "Replace the linear regression with Huber regression, epsilon=1.2.": [
        ("from sklearn.linear_model import LinearRegression\n", "from sklearn.linear_model import HuberRegressor\n"),
        ("model = LinearRegression()\n", "model = HuberRegressor(epsilon=1.2)\n"),
    ],
    "Leave out rows whose target is negative, and use pandas to read the file.": [
        ("import numpy as np\n", "import pandas as pd\n"),
        (
            'rows = np.loadtxt("rows.csv")\n',
            'rows = pd.read_csv("rows.csv", header=None).to_numpy()\nrows = rows[rows[:, 0] >= 0]\n',
        ),
    ],
}


def edit_messages(edit_format: EditFormat, source: str, instruction: str) -> list[Message]:
    """Return the chat that asks for an edit: examples with their answers, then the script and the instruction."""
    prompt, chat = EDIT_PROMPTS[edit_format], []
    for example, replacements in EXAMPLES.items():
        asked = prompt.format(source=EXAMPLE_SCRIPT.rstrip("\n"), instruction=example)
        chat += [Message(role="user", content=asked)]
        chat += [Message(role="assistant", content=_example_answer(edit_format, replacements))]
    asked = prompt.format(source=source.rstrip("\n"), instruction=instruction)
    return [*chat, Message(role="user", content=asked)]


def _example_answer(edit_format: EditFormat, replacements: list[tuple[str, str]]) -> str:
    if edit_format == "blocks":
        code = "".join(f"{SEARCH}\n{old}{DIVIDER}\n{new}{REPLACE}\n" for old, new in replacements)
    else:
        code = EXAMPLE_SCRIPT
        for old, new in replacements:
            code = code.replace(old, new)
    return f"```python\n{code}```"


def repeat_message(edit_format: EditFormat, error: str, is_incomplete: bool) -> Message:
    """Return the message that asks once more, with what is wrong.

    Args:
        edit_format: The form of the edits.
        error: What is wrong.
        is_incomplete: Whether the answer can be used, together with what is missing.
    """
    prompt = COMPLETE_PROMPTS[edit_format] if is_incomplete else REPEAT_PROMPT
    return Message(role="user", content=prompt.format(error=error))
