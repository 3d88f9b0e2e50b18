"""Stop a collection whose actor does not act: nothing can be learned from responses that are no valid action."""

from collections.abc import Callable, Mapping

from rollout.errors import WorthlessResult

MIN_STEPS = 50  # responses of this process before it judges their share


class InvalidShare:
    """The share of responses that are no valid action, while a collection runs and at its end."""

    def __init__(self, max_share: float, remedy: Callable[[], str]) -> None:
        """Start with no responses.

        Args:
            max_share: The largest share that is accepted, the key `collect.max_invalid_share`.
            remedy: A function that returns what a user can do, called when it is needed.
        """
        self._max_share, self._remedy = max_share, remedy
        self._first: tuple[float, float] | None = None

    def check_new(self, figures: Mapping[str, float]) -> None:
        """Judge the responses since the first call, which recorded ones of an earlier process do not count for.

        Args:
            figures: The figures of the whole collection so far.

        Raises:
            WorthlessResult: If there are some and too many of them are invalid.
        """
        num_invalid, num_steps = figures["num_invalid"], figures["num_steps"]
        if self._first is None:
            self._first = num_invalid, num_steps
        num_invalid, num_steps = num_invalid - self._first[0], num_steps - self._first[1]
        if num_steps >= MIN_STEPS:
            self._judge(num_invalid, num_steps)

    def check_all(self, figures: Mapping[str, float]) -> None:
        """Judge all responses of a collection. Raises WorthlessResult if too many are invalid, or there are none."""
        if not figures["num_steps"]:
            raise WorthlessResult(
                f"none of {figures['num_trajectories']:g} trajectories has a response to learn from; {self._remedy()}"
            )
        self._judge(figures["num_invalid"], figures["num_steps"])

    def _judge(self, num_invalid: float, num_steps: float) -> None:
        if num_invalid > self._max_share * num_steps:
            raise WorthlessResult(
                f"{num_invalid:g} of {num_steps:g} responses are no valid action, more than "
                f"collect.max_invalid_share={self._max_share:g}; {self._remedy()}"
            )
