"""The agents and coders of `mlagent solve`: the scripted ones, a policy's directory, or a model at an endpoint."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.solving.options import SolveLayout, SolveOptions, is_address
from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import CoderError, ExpertError, InfrastructureError
from rollout.exploration.candidates import library_candidates
from rollout.exploration.draws import draw_ideas
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.inference.vllm_package import is_cpu_build
from rollout.options import Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.episode import PolicyActor
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.search.search import Agent
from rollout.storage.run_layout import RunLayout
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Coder
from tasks.prompt import Prompt
from tasks.response_grammar import response_grammar
from tasks.system_text import system_text
from tasks.task import Task

POLICY_REQUESTS = 8  # responses of a served policy at a time
CODER_KEY = "MLAGENT_SOLVE_CODER_KEY"  # environment variable with the key of a coder's own server
CODER_CONTEXT = 8192  # tokens of a prompt and its answer
CPU_CACHE_MB = 1024  # for keys and values of each server on a CPU


@dataclass(frozen=True)
class PolicySettings:
    """The settings with which a policy acts.

    Attributes:
        prompt: The prompt.
        observation: The limits on what one feedback shows.
        max_model_len: The maximum number of tokens of a prompt and its response together.
        max_response_tokens: The maximum number of tokens of a response.
        temperature: The sampling temperature.
        is_trained: Whether it learned to act, so that its responses need no constraint.
    """

    prompt: Prompt = field(default_factory=lambda: Prompt(show_script=True))
    observation: Observation = field(default_factory=Observation)
    max_model_len: int = 8192
    max_response_tokens: int = 512
    temperature: float = 1.0
    is_trained: bool = False

    @property
    def system(self) -> str:
        """The system message."""
        return system_text(self.prompt.system, self.observation.script_lines)


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

        def endpoint(use: str, address: str, model: str, key: str, kind: type[InfrastructureError]) -> ChatEndpoint:
            prices = options.price if use == "agent" else options.coder_price
            budget = Budget(max_dollars=options.dollars_of(use), prices=Prices(prices[0], prices[0], prices[1]))
            exchanges = Exchanges(layout.exchanges / use)
            opened = ChatEndpoint(address, model, kind, key, name=use, budget=budget, exchanges=exchanges)
            endpoints[use] = opened
            stack.callback(lambda: event_loop.run(opened.close(10.0)))
            return opened

        settings, requests, served = PolicySettings(), POLICY_REQUESTS, None
        if options.agent == "scripted":
            settings, requests = PolicySettings(Prompt()), 0
            agent = scripted_agent(task, options)
        elif is_address(options.agent):
            model = endpoint("agent", options.agent, options.model, options.key_env, ExpertError)
            agent = Agent(EndpointExpert(model, settings.system))
        else:
            settings = policy_settings(Path(options.agent))
            agent, served = stack.enter_context(_policy(Path(options.agent), settings, layout, event_loop))
        if options.coder == "scripted":
            coder: Coder = ScriptedCoder()
        else:
            address, model_name, key = options.coder, options.coder_model, options.coder_key_env
            if not is_address(options.coder):
                if served is None or Path(options.coder).resolve() != served.model:
                    served = stack.enter_context(_server(Path(options.coder), layout.coder_log, CODER_CONTEXT))
                os.environ[CODER_KEY] = served.key
                address, model_name, key = f"{served.address}/v1", str(served.model), CODER_KEY
            coder = EndpointCoder(endpoint("coder", address, model_name, key, CoderError), "script")
        yield Team(agent, coder, settings, endpoints, requests)


def scripted_agent(task: Task, options: SolveOptions) -> Agent:
    """Return the scripted expert, each of whose histories starts with ideas of its own from the idea library."""
    pool = library_candidates([task])[task.name]
    pool = {axis: ideas for axis, ideas in pool.items() if ideas}
    num_steps = options.steps * (options.trajectories if options.search == "chain" else 1)

    def draw(seed: int) -> Sequence[str]:
        return draw_ideas(random.Random(f"{seed}/ideas"), pool)

    return Agent(ScriptedExpert(num_steps + 1), draw)  # its last action would be the final answer


def policy_settings(directory: Path) -> PolicySettings:
    """Return the settings of the run that a policy is from, or those for a model that no run here trained."""
    for folder in (directory.resolve().parent, directory.resolve().parent.parent):
        file = RunLayout(folder).config
        if file.is_file():
            config = load_config(file, ())
            return PolicySettings(
                prompt=config.prompt,
                observation=config.observation,
                max_model_len=config.server.max_model_len,
                max_response_tokens=config.ppo.max_response_tokens,
                temperature=config.ppo.temperature,
                is_trained=True,
            )
    return PolicySettings()


@contextmanager
def _policy(
    directory: Path, settings: PolicySettings, layout: SolveLayout, event_loop: EventLoopThread
) -> Iterator[tuple[Agent, ServerProcess]]:
    """Yield the policy in a directory and the server that samples it.

    The responses of a policy that is not trained to act obey a grammar.
    """
    tokenizer = ChatTokenizer(directory, settings.system)
    grammar = None if settings.is_trained else response_grammar(settings.max_response_tokens)
    with _server(directory, layout.server_log, settings.max_model_len) as server:
        client = PolicyClient(
            server.address,
            temperature=settings.temperature,
            max_tokens=settings.max_response_tokens,
            stop_ids=[tokenizer.eos_id],
            grammar=grammar,
            key=server.key,
        )
        event_loop.run(client.connect())
        try:
            if grammar is not None:
                event_loop.run(client.check_grammars(tokenizer.encode, tokenizer.decode))
            actor = PolicyActor(client, tokenizer, settings.max_model_len, settings.max_response_tokens)
            yield Agent(actor), server
        finally:
            event_loop.run(client.close())


def _server(directory: Path, log: Path, max_model_len: int) -> ServerProcess:
    """Return a server of the model in a directory, not yet started."""
    cache_mb = CPU_CACHE_MB if is_cpu_build() else 0
    options = ServerOptions(dtype="bfloat16", max_model_len=max_model_len, kv_cache_mb=cache_mb)
    return ServerProcess(directory, log, options)


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
