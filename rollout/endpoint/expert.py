"""An expert that is a language model behind an OpenAI-compatible endpoint."""

from dataclasses import dataclass

from rollout.endpoint import ChatEndpoint
from rollout.errors import EndpointRefused, PromptTooLong
from rollout.types import Response
from tasks.prompt import messages
from tasks.state import State
from tasks.task import Instance


@dataclass(frozen=True)
class EndpointExpert:
    """An expert model behind an OpenAI-compatible endpoint. The problem text of the state contains the ideas.

    Attributes:
        endpoint: The endpoint.
        system: The system message.
        temperature: The sampling temperature.
    """

    endpoint: ChatEndpoint
    system: str
    temperature: float = 1.0

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the model's response, or None if the state no longer fits its context.

        Truncated, refusing and empty responses count as the agent's and are returned too.

        Raises:
            ExpertError: If there is no response.
            EndpointRefused: If even the task itself does not fit the context.
        """
        del instance  # the expert sees only the state
        try:
            text = await self.endpoint.complete(messages(state, self.system), seed=seed, temperature=self.temperature)
        except PromptTooLong as error:
            if not state.turns:
                raise EndpointRefused(
                    f"{error}; even a task without turns does not fit: lower expert.max_response_tokens "
                    f"({self.endpoint.max_response_tokens}), or serve the model with a larger context"
                ) from None
            return None
        return Response(text)
