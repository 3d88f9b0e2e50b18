"""The rules of a search: which state the agent acts from next."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from rollout.search.tree import Node, SearchTree


class Rule(Protocol):
    """A rule that chooses the states from which a search goes on."""

    def choose(self, tree: SearchTree) -> Node | None:
        """Return the state to act from next, or None if there is none until a running action ends."""
        ...


@dataclass(frozen=True)
class Chains:
    """Independent trajectories, as in the paper: only the newest state of each goes on.

    Attributes:
        num_parallel: The number of trajectories; one that the agent ended is followed by another.
        max_steps: The maximum number of actions of a trajectory.
    """

    num_parallel: int
    max_steps: int

    def choose(self, tree: SearchTree) -> Node | None:
        """Return the newest state of the first trajectory that waits, or the root if a trajectory may begin."""
        chains = [each for each in tree.leaves() if not each.end]
        waiting = [each for each in chains if not each.running and each.depth < self.max_steps]
        if waiting:
            return waiting[0]
        num_open = len(chains) + len(tree.root.running)
        return tree.root if num_open < self.num_parallel and not tree.root.end else None


@dataclass(frozen=True)
class UpperConfidence:
    """The most promising state of a tree: upper confidence bounds with progressive widening.

    From the root, the search descends into the child with the highest bound Q + c sqrt(ln N(parent) / N(child)) (UCT,
    Kocsis and Szepesvari 2006) until a state has fewer than N^w actions of its own, and acts there (progressive
    widening, Couetoux et al. 2011). N counts the actions in and below a state, running ones included, so that
    concurrent actions spread. Q is the best validation score below a state, between 0 for the worst and 1 for the best
    of all; differences within the noise of a score count little.

    Attributes:
        max_steps: The maximum number of actions of a history.
        exploration: c, the weight of the bonus of children with few actions.
        widening: w, the exponent of the number of actions from one state.
    """

    max_steps: int
    exploration: float = 0.05
    widening: float = 0.1

    def choose(self, tree: SearchTree) -> Node | None:
        """Return the state to act from, None if all have ended."""
        sizes, tops, is_open = self._summaries(tree)
        low, high = min(tops), max(tops)
        spread = high - low + 2 * tree.task.noise or 1.0

        def bound(parent: Node, child: Node) -> float:
            bonus = math.sqrt(math.log(sizes[parent.number]) / sizes[child.number])
            return (tops[child.number] - low) / spread + self.exploration * bonus

        node = tree.root
        while is_open[node.number]:
            children = [child for child in node.children if is_open[child.number]]
            can_act = not node.end and node.depth < self.max_steps
            if can_act and (not children or node.num_visits < sizes[node.number] ** self.widening):
                return node
            node = max(children, key=partial(bound, node))  # the earliest of equal ones
        return None

    def _summaries(self, tree: SearchTree) -> tuple[list[int], list[float], list[bool]]:
        """Return the actions in and below each state, the best value there, and whether one there can be acted from."""
        sizes = [1 + len(node.running) for node in tree.nodes]
        tops = [tree.task.sign * node.snapshot.best_score for node in tree.nodes]
        is_open = [not node.end and node.depth < self.max_steps for node in tree.nodes]
        for node in reversed(tree.nodes[1:]):  # a state comes after the one before it
            assert node.parent is not None, "only the root has none"
            above = node.parent.number
            sizes[above] += sizes[node.number]
            tops[above] = max(tops[above], tops[node.number])
            is_open[above] |= is_open[node.number]
        return sizes, tops, is_open


def make_rule(search: str, num_trajectories: int, max_steps: int) -> Rule:
    """Return the rule of a kind of search, with `num_trajectories * max_steps` actions in mind.

    `chain` is one trajectory with all actions, `best-of` are several side by side, and `tree` chooses among all states.
    `python -m benchmarks.search_rules` compares them, and chose the constants of the tree.
    """
    if search == "chain":
        return Chains(1, num_trajectories * max_steps)
    if search == "best-of":
        return Chains(num_trajectories, max_steps)
    assert search == "tree", search
    return UpperConfidence(num_trajectories * max_steps)
