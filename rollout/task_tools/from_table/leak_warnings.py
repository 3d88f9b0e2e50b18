"""Warn about a table that gives its target away: by groups on both sides of the split, by copies, or by its scores."""

# pandas' type stubs list every possible return type.
# pyright: reportReturnType=false

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rollout.task_tools.from_table.column_roles import ColumnRoles
from rollout.task_tools.groups import TARGET, SharedGroups, both_sides, shared_groups
from tasks.metric import OPTIMUM
from tasks.quoting import quoted, shell_command
from tasks.task import Task
from tasks.task_tables import read_task_tables

NEAR = 1e-3  # distance from the best possible score, relative to the target's spread if errors have its unit
SAME = 1e-9  # the same for scores that are 1 only without any mistake
MAX_COLUMNS = 3  # that are warned about
IN_UNITS = ("mae", "rmse")  # metrics in the target's unit
OF_MISTAKES = ("accuracy", "auc", "f1", "qwk")


@dataclass(frozen=True)
class Leaks:
    """The leaks of a prepared task's target.

    Attributes:
        groups: The columns whose groups are on both sides of the split, the most suspicious first.
        copied: The share of the test rows that equal a training row in all columns but those that name rows, 0 if
            equal rows do not have equal targets.
        identifiers: The columns that name rows.
        near: The distance from the best possible score from which a score is suspicious.
        is_drawn: Whether the test rows were drawn from the table, and not stated by the user.
    """

    groups: tuple[SharedGroups, ...]
    copied: float
    identifiers: tuple[str, ...]
    near: float
    is_drawn: bool = True

    @property
    def warnings(self) -> list[str]:
        """Lines for the user."""
        lines = [
            f"warning: rows with the same {quoted(each.column)} have {'the same' if each.are_equal else 'a similar'} "
            f"target, and {each.share:.0%} of the test rows have one that occurs in the training data; if the task is "
            "about new ones, " + self._remedy(each.column)
            for each in self.groups[:MAX_COLUMNS]
        ]
        if self.copied:
            names = " and ".join(map(quoted, self.identifiers))
            lines.append(
                f"warning: {self.copied:.0%} of the test rows have a copy in the training data that differs only in "
                f"{names}; remove copies from the table"
            )
        return lines

    def is_best_possible(self, task: Task, score: float) -> bool:
        """Return whether a score is so good that the target is probably given away."""
        return abs(score - OPTIMUM[task.direction]) <= self.near

    @property
    def suspicion(self) -> str:
        """The end of a sentence about the table."""
        column = f" through {quoted(self.groups[0].column)}" if self.groups else ""
        remedy = "pass --group" if self.is_drawn else "leave such test rows out"
        return f"the table probably gives the target away{column}; remove such columns, or {remedy}"

    def _remedy(self, column: str) -> str:
        return f"pass {shell_command('--group', column)}" if self.is_drawn else "leave these test rows out"


def find_leaks(task: Task, roles: ColumnRoles, is_drawn: bool = True) -> Leaks:
    """Return the leaks of a prepared task's target; `is_drawn` says whether its test rows were drawn from the table."""
    tables = read_task_tables(task.public, task.private, task.submission, task.answers)
    near = SAME if task.metric in OF_MISTAKES else NEAR
    if task.metric in IN_UNITS:
        near *= float(np.std(tables.answers["target"].astype(float)))
    sides = both_sides(tables)
    if sides is None:
        return Leaks((), 0.0, roles.identifiers, near, is_drawn)
    copied = 0.0
    if roles.identifiers:
        # Rows that differ only in an identifier are those of one group.
        train, test = (pd.DataFrame({"rest": _joined(side, roles.identifiers), TARGET: side[TARGET]}) for side in sides)
        copied = next((found.share for found in shared_groups(train, test)), 0.0)
    return Leaks(tuple(shared_groups(*sides, with_similar=True)), copied, roles.identifiers, near, is_drawn)


def _joined(side: pd.DataFrame, ignored: tuple[str, ...]) -> pd.Series:
    """Return the features of each row, joined into one text, `[B]`, without those to ignore."""
    return side.drop(columns=[*ignored, TARGET]).agg("\0".join, axis=1)
