"""The agents and coders of `mlagent solve`: the scripted ones, a policy's directory, or a model at an endpoint."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.agents.endpoint import EndpointModel, is_address, open_endpoint, served_here
from mlagent_jax.agents.policy import POLICY_REQUESTS, PolicySettings, coder_server, policy_settings, served_policy
from mlagent_jax.solving.options import SolveLayout, SolveOptions
from rollout.endpoint import ChatEndpoint
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import CoderError, ExpertError, InfrastructureError
from rollout.exploration.candidates import library_drawer
from rollout.runtime.event_loop import EventLoopThread
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.search.search import Agent
from rollout.types import Coder
from tasks.prompt import Prompt
from tasks.task import Task


@dataclass(frozen=True)
class Team:
    """The agent, the coder, and what the agent reads.

    Attributes:
        agent: The agent.
        coder: The coder.
        settings: The prompt and the limits on feedback.
        endpoints: The endpoints that were opened by the name of their use.
        requests: The number of requests for responses at a time, 0 for an agent that answers at once.
    """

    agent: Agent
    coder: Coder
    settings: PolicySettings
    endpoints: Mapping[str, ChatEndpoint]
    requests: int = 0

    def num_concurrent(self, num_slots: int) -> int:
        """Return the number of actions at a time, for a number of scripts at a time."""
        return max(num_slots, self.requests)

    def figures(self) -> dict[str, Any]:
        """Return the figures of each endpoint."""
        return {name: endpoint.figures() for name, endpoint in self.endpoints.items()}


@contextmanager
def open_team(options: SolveOptions, layout: SolveLayout, task: Task, event_loop: EventLoopThread) -> Iterator[Team]:
    """Yield the agent and the coder; leaving the block ends what was started for them.

    Raises:
        ValueError: If a directory holds no policy, or an endpoint lacks its key.
        InfrastructureError: If a server does not start.
    """
    with ExitStack() as stack:
        endpoints: dict[str, ChatEndpoint] = {}

        def opened(stated: EndpointModel, kind: type[InfrastructureError]) -> ChatEndpoint:
            endpoint = stack.enter_context(open_endpoint(stated, layout.exchanges, kind, event_loop))
            endpoints[stated.name] = endpoint
            return endpoint

        settings, requests, served = PolicySettings(), POLICY_REQUESTS, None
        if options.agent == "scripted":
            settings, requests = PolicySettings(Prompt()), 0
            agent = scripted_agent(task, options)
        elif is_address(options.agent):
            agent = Agent(EndpointExpert(opened(stated_endpoint("agent", options), ExpertError), settings.system))
        else:
            settings = policy_settings(Path(options.agent))
            policy = served_policy(Path(options.agent), settings, layout.server_log, event_loop)
            actor, served = stack.enter_context(policy)
            agent = Agent(actor)
        if options.coder == "scripted":
            coder: Coder = ScriptedCoder()
        else:
            stated = stated_endpoint("coder", options)
            if not is_address(options.coder):
                if served is None or Path(options.coder).resolve() != served.model:
                    served = stack.enter_context(coder_server(Path(options.coder), layout.coder_log))
                stated = served_here(served, "coder")
            coder = EndpointCoder(opened(stated, CoderError), "script")
        yield Team(agent, coder, settings, endpoints, requests)


def stated_endpoint(use: str, options: SolveOptions) -> EndpointModel:
    """Return the model of the agent or of the coder at an endpoint."""
    if use == "agent":
        who, model, key, price, option = options.agent, options.model, options.key_env, options.price, "--"
    else:
        who, model, key, price = options.coder, options.coder_model, options.coder_key_env, options.coder_price
        option = "--coder-"
    named = {"model": f"{option}model", "api_key_env": f"{option}key-env"}
    return EndpointModel(use, who, model, key, price, options.dollars_of(use), named)


def scripted_agent(task: Task, options: SolveOptions) -> Agent:
    """Return the scripted expert, each of whose histories starts with ideas of its own from the idea library."""
    num_steps = options.steps * (options.trajectories if options.search == "chain" else 1)
    return Agent(ScriptedExpert(num_steps + 1), library_drawer(task))  # its last action would be the final answer


def describe_sending(options: SolveOptions, system: str, problem: str) -> str:
    """Return what the command would send to which endpoint; nothing else leaves the machine."""
    lines = []
    if is_address(options.agent):
        lines += [
            f"to {options.agent}, model {options.model}, for each action: the system message, the problem, and all",
            "actions and their results so far, which hold parts of scripts and what scripts print, such as scores. The",
            "first message:",
            *(f"  {line}" for line in f"{system}\n\n{problem}".splitlines()),
        ]
    if is_address(options.coder):
        lines += [
            f"to {options.coder}, model {options.coder_model}, for each edit: the script and the instruction; for the",
            "action Understand File: the first 20,000 characters of a file, which may be training data",
        ]
    return "\n".join(lines) or "nothing leaves this machine"
