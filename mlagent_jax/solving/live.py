"""The table in the terminal while a search runs; elsewhere, lines in the log."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mlagent_jax.tracking.progress import LINE_EVERY_SECONDS, Reporter, duration_text
from rollout.search.search import Budget
from rollout.search.tree import Node, SearchTree, instruction_of
from tasks.feedback import score_text

NUM_SHOWN = 6  # newest actions

logger = logging.getLogger(__name__)


class Progress:
    """The progress of a search: its best score, the newest actions, and what is left of the budget."""

    def __init__(self, tree: SearchTree, budget: Budget, cost: Callable[[], str]) -> None:
        """Describe a search; `cost` returns what its requests cost so far, `` if they cost nothing."""
        self._tree, self._budget, self._cost = tree, budget, cost
        self._newest: deque[Node] = deque(tree.nodes[1:], NUM_SHOWN)
        self._start = time.monotonic() - tree.nodes[-1].seconds
        self._last_line = 0.0

    def update(self, node: Node) -> None:
        """Show a new state, as a line of the log at most every 15 seconds."""
        self._newest.append(node)
        if time.monotonic() - self._last_line >= LINE_EVERY_SECONDS or self._tree.num_actions == self._budget.actions:
            self._last_line = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return the state of the search in one line."""
        task = self._tree.task
        spent = time.monotonic() - self._start
        cost = self._cost()
        return (
            f"{self._tree.num_actions} of {self._budget.actions} actions · best validation {task.metric} "
            f"{score_text(best_score(self._tree))} (initial {score_text(task.validation_init)}) · "
            f"{duration_text(max(0.0, self._budget.seconds - spent))} left" + (f" · {cost}" if cost else "")
        )

    def __rich__(self) -> Group:
        """Return the table."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, options in (("#", {"justify": "right"}), ("from", {"justify": "right"}), ("validation", {})):
            table.add_column(name, **options)  # type: ignore[arg-type]
        table.add_column("action", no_wrap=True, overflow="ellipsis", ratio=1)
        for node in self._newest:
            assert node.step is not None and node.parent is not None, "the root is no new state"
            score = node.step.feedback.validation
            is_best = score is not None and score == node.snapshot.best_score != node.parent.snapshot.best_score
            shown = "" if score is None else score_text(score)
            style = "green" if is_best else None
            instruction = escape(instruction_of(node.step).replace("\n", " "))
            table.add_row(str(node.number), str(node.parent.number), shown, instruction, style=style)
        return Group(f"[bold]{escape(self._tree.task.name)}[/bold]  {self.line()}", table)


def best_score(tree: SearchTree) -> float:
    """Return the best validation score of a search so far."""
    scores = [node.snapshot.best_score for node in tree.nodes]
    return max(scores) if tree.task.direction == "maximize" else min(scores)


@contextmanager
def show_progress(
    tree: SearchTree, budget: Budget, reporter: Reporter, cost: Callable[[], str] = str
) -> Iterator[Progress]:
    """Yield the progress of a search, which a terminal shows as a live table; `cost` as in `Progress`."""
    progress = Progress(tree, budget, cost)
    if not reporter.console.is_terminal:
        yield progress
        return
    with Live(progress, console=reporter.console, refresh_per_second=4):
        yield progress
