"""The options of `mlagent evaluate`, and the files of its folder."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from mlagent_jax.agents.endpoint import is_address
from mlagent_jax.agents.policy import find_policy
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Tasks
from tasks.nearest import nearest
from tasks.quoting import user_path
from tasks.registry import find

BUILT_IN = ("initial", "random", "scripted", "automl")
CODER = "coder"  # the name of the coder in --model, --key-env and --price
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SUITES = {"suite": "full_suite", "quickstart": "quickstart", "paper": ""}  # configuration that names the tasks


@dataclass(frozen=True)
class AgentSpec:
    """An agent.

    Attributes:
        name: Its name in the results.
        where: A name in `BUILT_IN`, a directory of a policy, or the address of an endpoint.
        model: The name of the model at an endpoint.
        key_env: The environment variable with the key of an endpoint, `` if it needs none.
        price: The dollars for a million tokens of prompts and of answers.
    """

    name: str
    where: str
    model: str = ""
    key_env: str = ""
    price: tuple[float, float] = (0.0, 0.0)

    @property
    def is_policy(self) -> bool:
        """Whether it is a directory that is served here."""
        return self.where not in BUILT_IN and not is_address(self.where)


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of an evaluation.

    Attributes:
        out: The folder of the results.
        agents: The agents.
        tasks: The names of the tasks.
        coder: The writer of edits: `scripted`, a directory of a model, or a model at an endpoint.
        paths: Folders of tasks that are not bundled.
        raw: The folder of the raw data of the paper's tasks, None if it is fetched.
        k: The number of trajectories of each agent on each task and seed.
        seeds: The number of seeds.
        steps: The maximum number of actions of a trajectory.
        minutes: The time of a trajectory, and of the AutoML baseline, in minutes.
        slots: The number of scripts that run at a time.
        dollars: The limit on the cost of each endpoint, None for no limit.
    """

    out: Path
    agents: tuple[AgentSpec, ...]
    tasks: tuple[str, ...]
    coder: AgentSpec = AgentSpec(CODER, "scripted")
    paths: tuple[Path, ...] = ()
    raw: Path | None = None
    k: int = 4
    seeds: int = 1
    steps: int = 15
    minutes: float = 30.0
    slots: int = 2
    dollars: float | None = None

    def __post_init__(self) -> None:
        for name in ("k", "seeds", "steps", "slots"):
            if getattr(self, name) < 1:
                option = "-k" if name == "k" else f"--{name}"
                raise ValueError(f"{option} is {getattr(self, name)}; expected 1 or more")
        if not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes is {self.minutes}; expected a number above 0")
        if self.dollars is not None and not 0 < self.dollars < math.inf:
            raise ValueError(f"--dollars is {self.dollars}; expected an amount above 0")
        if self.raw is not None and not self.raw.is_dir():
            raise ValueError(f"there is no folder {self.raw}; check --raw")
        names = [agent.name for agent in self.agents]
        if CODER in names:
            raise ValueError(f"no agent can be named {CODER}, the name of the coder; give another, as NAME=WHERE")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two agents are named {doubled[0]}; name one, as in other={doubled[0]}")
        for agent in (*self.agents, self.coder):
            if is_address(agent.where) and not agent.model:
                raise ValueError(f"{agent.name}={agent.where} needs --model {agent.name}=MODEL, the model there")
            if not is_address(agent.where) and (agent.model or agent.key_env or any(agent.price)):
                raise ValueError(f"--model, --key-env and --price are for endpoints; leave them out for {agent.name}")
            if agent.key_env and agent.key_env not in os.environ:
                raise ValueError(
                    f"--key-env {agent.name}={agent.key_env}: that environment variable is not set; export it"
                )
            if self.dollars is not None and is_address(agent.where) and not any(agent.price):
                raise ValueError(f"--dollars needs all prices: add --price {agent.name}=INPUT,OUTPUT")

    def identity(self, agent: AgentSpec) -> dict[str, Any]:
        """Return what the trajectories of an agent depend on, besides tasks, weights and seeds, as JSON values."""
        own: dict[str, Any] = {"agent": agent.where, "model": agent.model}
        if agent.where == "automl":
            own["slots"] = self.slots
        elif agent.where != "initial":
            own |= {"coder": self.coder.where, "coder_model": self.coder.model}
        return {**own, "k": self.k, "steps": self.steps, "minutes": self.minutes}


class EvaluateLayout:
    """The paths in the folder of an evaluation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = root / "results.json"
        self.report = root / "report.html"
        self.trajectories = root / "trajectories.html"
        self.reports = root / "mle_bench"
        self.log = root / "log.txt"
        self.coder_log = root / "coder.log"
        self.data = root / "data"
        self.blobs = root / "blobs"
        self.result_cache = root / "cache"
        self.temporary = root / "tmp"
        self.exchanges = root / "exchanges"

    @property
    def agents(self) -> Path:
        """The folder of all agents."""
        return self.root / "agents"

    def agent(self, name: str) -> Path:
        """Return the folder of an agent's trajectories."""
        return self.agents / name

    def seed(self, name: str, seed: int) -> Path:
        """Return the folder of an agent's trajectories of one seed."""
        return self.agent(name) / f"seed-{seed}"


def read_agents(
    texts: Sequence[str], models: Mapping[str, str], keys: Mapping[str, str], prices: Mapping[str, str]
) -> tuple[AgentSpec, ...]:
    """Return the agents that are given as `NAME=WHERE`, or as `WHERE` alone.

    Args:
        texts: The agents.
        models: The models at endpoints, by the name of the agent.
        keys: The environment variables with their keys.
        prices: Their prices, such as `2.5,10`.

    Raises:
        ValueError: If one is not understood. The message has a remedy.
    """
    found = []
    for text in texts:
        name, equals, where = text.partition("=")
        if not equals or is_address(text):
            name, where = _default_name(text), text
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an agent; give letters, digits, dots or hyphens, as NAME=WHERE")
        price = _price(name, prices[name]) if name in prices else (0.0, 0.0)
        found.append(AgentSpec(name, _where(where), models.get(name, ""), keys.get(name, ""), price))
    known = {agent.name for agent in found}
    for option, given in (("--model", models), ("--key-env", keys), ("--price", prices)):
        unknown = sorted(given.keys() - known - {CODER})
        if unknown:
            raise ValueError(f"{option} {unknown[0]}=...: no agent is named {unknown[0]}{nearest(unknown[0], known)}")
    return tuple(found)


def read_tasks(names: Sequence[str], paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of tasks; `suite`, `quickstart` and `paper` name several.

    Raises:
        ValueError: If there is no such task.
    """
    found: dict[str, None] = {}
    for name in names:
        if name in SUITES:
            configuration = Path(__file__).parents[2] / "configs" / f"{SUITES[name]}.yaml"
            tasks = load_config(configuration).tasks if SUITES[name] else Tasks()
            found |= dict.fromkeys((*tasks.held_in, *tasks.held_out))
        else:
            found[find(name, paths).name] = None
    return tuple(found)


def as_json(options: EvaluateOptions) -> dict[str, Any]:
    """Return the options as JSON values."""
    agents = [{**asdict(agent), "where": shown(agent.where)} for agent in options.agents]
    paths = {"out": options.out, "paths": options.paths, "raw": options.raw}
    own = {name: to_jsonable_python(value) for name, value in paths.items()}
    return {**asdict(options), **own, "agents": agents}


def shown(where: str) -> str:
    """Return where an agent is, relative to the working directory if it is below that."""
    path = Path(where)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else where


def _where(text: str) -> str:
    if text in BUILT_IN or is_address(text):
        return text
    path = user_path(text)
    if not path.exists() and "/" not in text:
        raise ValueError(
            f"unknown agent {text!r}{nearest(text, BUILT_IN)}; expected {', '.join(BUILT_IN)}, a directory of a "
            "policy, or an address such as https://api.openai.com/v1"
        )
    return str(find_policy(path).absolute())


def _default_name(text: str) -> str:
    """Return the name of an agent that was given without one."""
    if text in BUILT_IN:
        return text
    if is_address(text):
        raise ValueError(f"{text} needs a name, as in gpt={text}")
    path = user_path(text)
    return path.parent.name if path.name in ("export", "model") else path.name


def _price(name: str, text: str) -> tuple[float, float]:
    try:
        given, answered = map(float, text.split(","))
        if not (0 <= given < math.inf and 0 <= answered < math.inf):
            raise ValueError
    except ValueError:
        raise ValueError(f"--price {name}={text}; expected dollars per million tokens, as {name}=2.5,10") from None
    return given, answered
