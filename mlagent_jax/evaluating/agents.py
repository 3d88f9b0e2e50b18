"""The agents that an evaluation can open."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlagent_jax.agents.policy import POLICY_REQUESTS, PolicySettings, policy_settings, served_policy
from mlagent_jax.evaluating.options import AgentSpec, EvaluateOptions
from mlagent_jax.solving.options import is_address
from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.expert import EndpointExpert
from rollout.endpoint.transport import require_listening
from rollout.errors import CoderError, ExpertError, InfrastructureError
from rollout.exploration.candidates import library_candidates
from rollout.exploration.draws import draw_ideas
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.collection import EpisodePlan
from rollout.sampling.evaluation import InitialScriptActor
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.random_recipes import RandomRecipeActor
from rollout.types import Actor, Coder
from tasks.prompt import Prompt
from tasks.task import Task

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
        with endpoint(spec, options, exchanges, event_loop, ExpertError) as model:
            yield OpenAgent(EndpointExpert(model, settings.system), settings, POLICY_REQUESTS, model.figures)
    else:
        settings = policy_settings(Path(spec.where))
        with served_policy(Path(spec.where), settings, folder / "server.log", event_loop) as (actor, _):
            yield OpenAgent(actor, settings, POLICY_REQUESTS)


@contextmanager
def open_coder(
    options: EvaluateOptions, exchanges: Path, event_loop: EventLoopThread
) -> Iterator[tuple[Coder, Callable[[], dict[str, Any]]]]:
    """Yield the coder of all agents, and a function that returns its tokens and dollars so far."""
    if options.coder.where == "scripted":
        yield ScriptedCoder(), dict
        return
    with endpoint(options.coder, options, exchanges, event_loop, CoderError) as model:
        yield EndpointCoder(model, "script"), model.figures


@contextmanager
def endpoint(
    spec: AgentSpec,
    options: EvaluateOptions,
    exchanges: Path,
    event_loop: EventLoopThread,
    kind: type[InfrastructureError],
) -> Iterator[ChatEndpoint]:
    """Yield the model at an endpoint, whose answers are journaled, so that none is paid for twice."""
    require_listening(spec.where, kind)
    budget = Budget(max_dollars=options.dollars, prices=Prices(spec.price[0], spec.price[0], spec.price[1]))
    journal = Exchanges(exchanges / spec.name)
    model = ChatEndpoint(spec.where, spec.model, kind, spec.key_env, name=spec.name, budget=budget, exchanges=journal)
    try:
        yield model
    finally:
        event_loop.run(model.close(10.0))


def with_library_ideas(plans: Plans) -> Plans:
    """Return the plans with ideas of the library, other ones for each trajectory."""
    tasks: dict[str, Task] = {plan.instance.task.name: plan.instance.task for plan in plans}
    pools = {
        name: {axis: ideas for axis, ideas in pool.items() if ideas}
        for name, pool in library_candidates(list(tasks.values())).items()
    }
    return [
        replace(plan, ideas=tuple(draw_ideas(random.Random(f"{plan.seed}/ideas"), pools[plan.instance.task.name])))
        for plan in plans
    ]
