"""Notice that a model answers without text, which a user has to fix."""

import logging
from collections import deque
from collections.abc import Callable

from rollout.endpoint.reply import Reply, why_empty
from rollout.errors import EndpointRefused

NUM_RECENT = 20  # answers that are judged together
MIN_EMPTY = 5  # empty answers among them that are no accident
WARN_AT = 3  # number of the empty answer that is told

log = logging.getLogger(__name__)


class EmptyAnswers:
    """The share of answers without text among the last answers of a model.

    Such an answer says something about the endpoint's setup and nothing about the agent: a reasoning model whose
    answers do not reach the text would otherwise be recorded as an expert that never acts.
    """

    def __init__(
        self, base_url: str, name: str, setting: Callable[[str], str], max_share: float, max_tokens: int
    ) -> None:
        """Start with no answers.

        Args:
            base_url: The address of the endpoint, named in messages.
            name: What the model is used as, such as `expert`.
            setting: A function that returns how the user states a setting, such as `model`, for errors.
            max_share: The largest share of empty answers that is accepted.
            max_tokens: The requests' limit on the tokens of an answer.
        """
        self._base_url, self._name, self._setting = base_url, name, setting
        self._max_share, self._max_tokens = max_share, max_tokens
        self._recent: deque[bool] = deque(maxlen=NUM_RECENT)
        self._num_empty = 0

    def add(self, reply: Reply) -> None:
        """Count one answer.

        Raises:
            EndpointRefused: If too many of the last answers are empty.
        """
        self._recent.append(reply.is_empty)
        if not reply.is_empty:
            return
        self._num_empty += 1
        num_empty, num_recent = sum(self._recent), len(self._recent)
        why = why_empty(reply, self._setting, self._max_tokens)
        if num_empty >= MIN_EMPTY and num_empty > self._max_share * num_recent:
            raise EndpointRefused(
                f"{self._base_url}: {num_empty} of the last {num_recent} answers of the {self._name} have no text, "
                f"more than {self._setting('max_empty_share')}={self._max_share:g}: {why}; the same command goes on"
            )
        if self._num_empty == WARN_AT:
            log.warning("%s: %d answers of the %s have no text: %s", self._base_url, WARN_AT, self._name, why)
