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
    """A model behind an OpenAI-compatible endpoint as the expert; the ideas stand in the state's problem text."""

    endpoint: ChatEndpoint
    temperature: float = 1.0

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the model's response, whatever it is: cut, refused and empty ones are the agent's doing.

        None where the state no longer fits the model's context.

        Raises:
            ExpertError: when no response came.
            EndpointRefused: when not even the task itself fits the context.
        """
        del instance  # the expert sees the state and nothing else
        try:
            text = await self.endpoint.complete(messages(state), seed=seed, temperature=self.temperature)
        except PromptTooLong as error:
            if not state.turns:
                raise EndpointRefused(
                    f"{error}; not even a task fits: lower expert.max_response_tokens "
                    f"({self.endpoint.max_response_tokens}), or serve the model with a larger context"
                ) from None
            return None
        return Response(text)
