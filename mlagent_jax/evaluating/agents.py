"""The agents that an evaluation can open."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlagent_jax.agents.endpoint import EndpointModel, is_address, open_endpoint, served_here
from mlagent_jax.agents.policy import POLICY_REQUESTS, PolicySettings, coder_server, policy_settings, served_policy
from mlagent_jax.evaluating.options import CODER, AgentSpec, EvaluateLayout, EvaluateOptions
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import CoderError, ExpertError
from rollout.exploration.candidates import library_drawer
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.collection import EpisodePlan
from rollout.sampling.evaluation import InitialScriptActor
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.random_recipes import RandomRecipeActor
from rollout.types import Actor, Coder
from tasks.prompt import Prompt

Plans = Sequence[EpisodePlan]


@dataclass(frozen=True)
class OpenAgent:
    """An agent that can act.

    Attributes:
        actor: The source of responses.
        settings: What it reads.
        requests: The number of requests for responses at a time, 0 for an agent that answers at once.
        figures: A function that returns tokens and dollars so far; empty for an agent without an endpoint.
        prepare: A function that gives the plans what this agent needs, such as ideas.
    """

    actor: Actor
    settings: PolicySettings
    requests: int = 0
    figures: Callable[[], dict[str, Any]] = dict
    prepare: Callable[[Plans], Plans] = lambda plans: plans


@contextmanager
def open_agent(
    spec: AgentSpec, options: EvaluateOptions, folder: Path, exchanges: Path, event_loop: EventLoopThread
) -> Iterator[OpenAgent]:
    """Yield an agent; leaving the block ends what was started for it.

    Args:
        spec: The agent.
        options: The options of the evaluation.
        folder: The folder of the agent, for a server's log.
        exchanges: The folder of the journals of requests to endpoints.
        event_loop: The thread whose event loop makes the requests.

    Raises:
        ValueError: If a directory holds no policy, or an endpoint lacks its key.
        InfrastructureError: If a server does not start.
    """
    plain = PolicySettings(Prompt())
    if spec.where == "initial":
        yield OpenAgent(InitialScriptActor(), plain)
    elif spec.where == "random":
        yield OpenAgent(RandomRecipeActor(), plain)
    elif spec.where == "scripted":
        yield OpenAgent(ScriptedExpert(options.steps), plain, prepare=with_library_ideas)
    elif is_address(spec.where):
        settings = PolicySettings()
        with open_endpoint(stated_endpoint(spec, options), exchanges, ExpertError, event_loop) as model:
            yield OpenAgent(EndpointExpert(model, settings.system), settings, POLICY_REQUESTS, model.figures)
    else:
        settings = policy_settings(Path(spec.where))
        with served_policy(Path(spec.where), settings, folder / "server.log", event_loop) as (actor, _):
            yield OpenAgent(actor, settings, POLICY_REQUESTS)


@contextmanager
def open_coder(
    options: EvaluateOptions, layout: EvaluateLayout, event_loop: EventLoopThread
) -> Iterator[tuple[Coder, Callable[[], dict[str, Any]]]]:
    """Yield the coder of all agents, and a function that returns its tokens and dollars so far.

    Raises InfrastructureError if its server does not start, or nothing listens at its address.
    """
    if options.coder.where == "scripted":
        yield ScriptedCoder(), dict
        return
    with ExitStack() as stack:
        stated = stated_endpoint(options.coder, options)
        if options.coder.is_policy:
            server = stack.enter_context(coder_server(Path(options.coder.where), layout.coder_log))
            stated = served_here(server, CODER)
        model = stack.enter_context(open_endpoint(stated, layout.exchanges, CoderError, event_loop))
        yield EndpointCoder(model, "script"), model.figures


def stated_endpoint(spec: AgentSpec, options: EvaluateOptions) -> EndpointModel:
    """Return the model of an agent or the coder at an endpoint."""
    stated = {"model": f"--model {spec.name}=MODEL", "api_key_env": f"--key-env {spec.name}=VARIABLE"}
    return EndpointModel(spec.name, spec.where, spec.model, spec.key_env, spec.price, options.dollars, stated)


def with_library_ideas(plans: Plans) -> Plans:
    """Return the plans with ideas of the library, other ones for each trajectory."""
    tasks = {plan.instance.task.name: plan.instance.task for plan in plans}
    drawers = {name: library_drawer(task) for name, task in tasks.items()}
    return [replace(plan, ideas=tuple(drawers[plan.instance.task.name](plan.seed))) for plan in plans]
