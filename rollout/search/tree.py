"""The tree of a search: every state that an agent reached on one task, and the action that led to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rollout.environment.paths import Refused, plain_name, script_path
from rollout.storage.trajectories import from_record, to_record
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import COPY_FILE, EDIT, EXECUTE, ends_trajectory, is_edit
from tasks.feedback import Outcome
from tasks.state import State
from tasks.task import Instance, Task

OUT_OF_CONTEXT = "context_limit"  # the end of a state to which the agent cannot respond


@dataclass
class Node:
    """A state of the search.

    Attributes:
        number: Its place in the order in which states were reached; the root is 0.
        parent: The state before it, None for the root.
        step: The action that led to it; None for the root.
        state: The history as the agent reads it.
        snapshot: The workspace and its scores.
        seconds: The time from the start of the search to this state, without interruptions.
        end: The reason why nothing follows, `` if something may.
        children: The states after it.
        draw: The number of the draw that gave the action, among those from the state before it.
        running: The numbers of the draws whose actions run now.
    """

    number: int
    parent: "Node | None"
    step: Step | None
    state: State
    snapshot: Snapshot
    seconds: float = 0.0
    end: str = ""
    children: list["Node"] = field(default_factory=list)
    draw: int = 0
    running: set[int] = field(default_factory=set)

    @property
    def depth(self) -> int:
        """The number of actions that led here."""
        return len(self.state.turns)

    @property
    def num_visits(self) -> int:
        """The number of actions that were, or are being, taken from this state."""
        return len(self.children) + len(self.running)

    def draws(self) -> list[int]:
        """Return the numbers of the draws on the path here, which say the same in any order of concurrent actions."""
        return [node.draw for node in self.path()[1:]]

    def next_draw(self) -> int:
        """Return the first number of a draw that no action has."""
        taken = self.running.union(child.draw for child in self.children)
        return next(number for number in count() if number not in taken)

    @property
    def script(self) -> str:
        """The script that the last action ran and that left a valid submission, `` if there is none."""
        if self.step is None or self.step.feedback.metric is None:
            return ""
        name = self.step.arguments["save_name" if is_edit(self.step.action) else "script_name"]
        return plain_name(script_path(name))

    def path(self) -> list["Node"]:
        """Return the states from the root to this one."""
        nodes: list[Node] = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]

    def lineage(self) -> list["Node"]:
        """Return the states whose edits made the script of this state, earliest first; others on the path did not."""
        name, found = self.script, []
        for node in reversed(self.path()):
            if node.step is None or not name:
                continue
            saved, source = _written(node.step)
            if saved == name:
                name = source
                found += [node] if is_edit(node.step.action) else []
        return found[::-1]


def _written(step: Step) -> tuple[str, str]:
    """Return the script that an action wrote and the one that it was made from; `` if it wrote none."""
    if step.feedback.outcome in (Outcome.NOT_EDITED, Outcome.INVALID):
        return "", ""
    names = {EDIT: ("save_name", "script_name"), COPY_FILE: ("destination", "source")}.get(step.action)
    if names is None:
        return "", ""
    try:
        saved, source = (plain_name(script_path(step.arguments[name])) for name in names)
    except Refused:
        return "", ""
    return saved, source


class SearchTree:
    """The states that were reached from the initial script of one instance of a task."""

    def __init__(self, instance: Instance, problem: str, start: Snapshot) -> None:
        self.instance = instance
        self.root = Node(0, None, None, State(problem), start)
        self.nodes = [self.root]

    @property
    def task(self) -> Task:
        """The task."""
        return self.instance.task

    @property
    def num_actions(self) -> int:
        """The number of actions that were taken."""
        return len(self.nodes) - 1

    def add(self, parent: Node, problem: str, step: Step, draw: int, seconds: float) -> Node:
        """Add the state after an action, and return it.

        Args:
            parent: The state before.
            problem: The problem as the agent read it: from the root, each action may have ideas of its own.
            step: The action.
            draw: The number of the draw that gave it.
            seconds: The time from the start of the search.
        """
        state = State(problem, parent.state.turns).then(step.response, step.feedback.text)
        end = "final_answer" if ends_trajectory(step.action) else ""
        node = Node(len(self.nodes), parent, step, state, step.after, seconds, end, draw=draw)
        self.nodes.append(node)
        parent.children.append(node)
        return node

    def leaves(self) -> Iterator[Node]:
        """Yield the states that nothing follows."""
        return (node for node in self.nodes if not node.children and node.step is not None)

    def record(self, node: Node) -> dict[str, Any]:
        """Return a state as one line of a journal; `replay` is the inverse."""
        assert node.parent is not None and node.step is not None, "the root is not recorded"
        last = Trajectory(
            str(node.number), self.task.name, 0, self.instance.names, node.state.problem, (), (node.step,), "step_limit"
        )
        place = {"parent": node.parent.number, "draw": node.draw, "elapsed_seconds": node.seconds}
        return {**place, **to_record(last)}

    def replay(self, record: Mapping[str, Any]) -> None:
        """Add the state of a record.

        Raises:
            ValueError: If the record belongs to another search.
        """
        last = from_record(record)
        expected = self.task.name, self.instance.names, str(len(self.nodes))
        parent, (step,) = self.nodes[record["parent"]], last.steps
        if (last.task, last.names, last.trajectory_id) != expected or step.before != parent.snapshot:
            raise ValueError("its journal belongs to another search, of other data or another seed")
        self.add(parent, last.problem, step, record["draw"], record["elapsed_seconds"])


def instruction_of(step: Step) -> str:
    """Return what an action did, in one line for people."""
    if step.action == EDIT:
        return step.arguments["edit_instruction"]
    if step.action == EXECUTE:
        return f"run {step.arguments['script_name']}"
    return step.action or "a response that is no action"
