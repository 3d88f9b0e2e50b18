"""The options with which a script must read a task's tables so that pandas finds the types of a user's table."""

from rollout.task_tools.from_table.numbers import is_infinite, is_number
from rollout.task_tools.from_table.user_table import UserTable

# Words that `pd.read_csv` takes for missing values by default.
NOT_WORDS = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null".split(",")
)


def reading_options(table: UserTable) -> str:
    """Return further arguments of `pd.read_csv`, empty if its defaults give the same types.

    Words such as NA would be missing values by default, and codes such as 00123 would be numbers.
    """
    words = {name: set(table.cells[name]) for name in table.cells if name not in table.numeric}
    options = ""
    if any(NOT_WORDS & cells for cells in words.values()):
        options += ', keep_default_na=False, na_values=[""]'
    codes = [name for name, cells in words.items() if any(is_number(cell, ".") or is_infinite(cell) for cell in cells)]
    if codes:
        options += f", dtype={{{', '.join(f'{name!r}: str' for name in codes)}}}"
    return options
