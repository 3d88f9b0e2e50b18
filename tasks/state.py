"""The agent's state: the whole history s_t = (s_0, a_0, f_0, ..., a_{t-1}, f_{t-1})."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One response of the agent and the feedback on it, as text."""

    response: str
    feedback: str


@dataclass(frozen=True)
class State:
    """A history to which the agent responds next.

    Attributes:
        problem: The first user message, the task's specification s_0.
        turns: The turns since, oldest first.
    """

    problem: str
    turns: tuple[Turn, ...] = ()

    def then(self, response: str, feedback: str) -> "State":
        """Return the state after one more turn, of which this state is an exact prefix."""
        return State(self.problem, (*self.turns, Turn(response, feedback)))
