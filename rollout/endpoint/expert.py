"""An expert that is a language model behind an OpenAI-compatible endpoint."""

from dataclasses import dataclass, field

from rollout.endpoint import Answer, ChatEndpoint
from rollout.endpoint.structured_outputs import request_fields, response_text
from rollout.errors import EndpointRefused, PromptTooLong
from rollout.options import StructuredOutputs
from rollout.types import Response
from tasks.action import Action
from tasks.prompt import messages
from tasks.response import parse_response
from tasks.state import State
from tasks.task import Instance

NUM_TRIES = 3  # answers without the constraint's form after which the endpoint is taken to ignore it


@dataclass
class EndpointExpert:
    """An expert model behind an OpenAI-compatible endpoint. The problem text of the state contains the ideas.

    Attributes:
        endpoint: The model.
        system: The system message.
        structured_outputs: The constraint on its answers.
        temperature: The sampling temperature.
    """

    endpoint: ChatEndpoint
    system: str
    structured_outputs: StructuredOutputs = "none"
    temperature: float = 1.0
    _num_obeying: int = field(default=0, init=False)
    _num_other: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._fields = request_fields(self.structured_outputs, self.endpoint.max_response_tokens)

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the model's response, or None if the state no longer fits its context.

        Truncated, refusing and empty responses count as the agent's and are returned too.

        Raises:
            ExpertError: If there is no response.
            EndpointRefused: If even the task itself does not fit the context, or the endpoint ignores the constraint.
        """
        del instance  # the expert sees only the state
        try:
            answer = await self.endpoint.ask(
                messages(state, self.system), seed=seed, temperature=self.temperature, fields=self._fields
            )
        except PromptTooLong as error:
            if not state.turns:
                raise EndpointRefused(
                    f"{error}; even a task without turns does not fit: lower expert.max_response_tokens "
                    f"({self.endpoint.max_response_tokens}), or serve the model with a larger context"
                ) from None
            return None
        text = response_text(self.structured_outputs, answer.visible_text)
        self._check_obeyed(answer, text)
        return Response(text)

    def _check_obeyed(self, answer: Answer, text: str) -> None:
        """Raise EndpointRefused if none of the first answers that ended by themselves obeys the constraint."""
        if self.structured_outputs == "none" or answer.end != "stop" or not text:
            return
        parsed = parse_response(text)
        obeys = isinstance(parsed.action, Action) and parsed.is_exact
        self._num_obeying += obeys
        self._num_other += not obeys
        if not self._num_obeying and self._num_other >= NUM_TRIES:
            raise EndpointRefused(
                f"{self.endpoint.base_url} ignores expert.structured_outputs={self.structured_outputs}: the first "
                f"{self._num_other} answers have another form; set it to a kind that the endpoint supports, or to none"
            )
