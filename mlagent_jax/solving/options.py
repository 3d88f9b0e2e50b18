"""The options of `mlagent solve`, and the files of its folder."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from mlagent_jax.agents.endpoint import is_address
from rollout.task_tools.from_table.raw_table import TableFormat
from tasks.quoting import user_path

SearchKind = Literal["chain", "best-of", "tree"]
SEARCHES: tuple[SearchKind, ...] = get_args(SearchKind)
PATHS = ("out", "csv", "test", "script", "data", "python")
OF_TABLES = ("target", "metric", "test", "id_column", "group", "time")  # options that only a table has
OF_SCRIPTS = ("data", "score", "direction")
MAX_HOLDOUT = 0.9


@dataclass(frozen=True)
class SolveOptions:
    """What to solve, with which agent, and within which budget.

    Attributes:
        out: The folder of the result.
        csv: The user's table, None if `task` is given.
        target: The column to predict.
        metric: A name in `tasks.metric.METRICS`; `` to choose one by the target.
        test: A file of rows to predict, None if there is none.
        goal: A sentence for the agent, added to the problem.
        id_column: The column that only numbers the rows.
        group: The column whose rows with the same value stay together.
        time: The column of times, by which the latest rows are held out.
        form: The properties of the table's file that the user states.
        task: The name or the folder of a task, instead of a table.
        script: A script of the user's, instead of a table.
        data: The folder of the files that it reads, None for its own folder.
        score: The line with the score that it prints, with `*` for the number.
        direction: `maximize` or `minimize` if the score's name does not say which.
        agent: `scripted`, a directory of a policy, or the address of an endpoint.
        model: The name of the agent's model at an endpoint.
        coder: `scripted`, a directory of a model, or the address of an endpoint.
        key_env: The environment variable with the key of the agent's endpoint, `` if it needs none.
        price: The dollars for a million tokens of the agent's prompts and answers.
        coder_model: The name of the coder's model at an endpoint.
        coder_key_env: The environment variable with the key of the coder's endpoint.
        coder_price: The dollars for a million tokens of the coder's prompts and answers.
        dollars: The limit on the cost of all requests, None for no limit.
        search: The rule that chooses the states to act from.
        steps: The maximum number of actions of a history.
        trajectories: The number of histories; with `steps`, the number of actions in all.
        minutes: The time of the whole command, in minutes.
        holdout: The share of the rows that the agent does not see, half to choose by and half to report.
        seed: The seed of all draws.
        python: The interpreter that scripts run with, None for the one that `make env` installs.
        slots: The number of scripts that run at a time.
    """

    out: Path
    csv: Path | None = None
    target: str = ""
    metric: str = ""
    test: Path | None = None
    goal: str = ""
    id_column: str | None = None
    group: str | None = None
    time: str | None = None
    form: TableFormat = field(default_factory=TableFormat)
    task: str = ""
    script: Path | None = None
    data: Path | None = None
    score: str = ""
    direction: str = ""
    agent: str = "scripted"
    model: str = ""
    key_env: str = ""
    price: tuple[float, float] = (0.0, 0.0)
    coder: str = "scripted"
    coder_model: str = ""
    coder_key_env: str = ""
    coder_price: tuple[float, float] = (0.0, 0.0)
    dollars: float | None = None
    search: SearchKind = "chain"
    steps: int = 15
    trajectories: int = 4
    minutes: float = 30.0
    holdout: float = 0.3
    seed: int = 0
    python: Path | None = None
    slots: int = 2

    def __post_init__(self) -> None:
        self._check_problem()
        for name, least in (("steps", 1), ("trajectories", 1), ("slots", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected {least} or more")
        if not self.minutes > 0:
            raise ValueError(f"--minutes is {self.minutes}; expected a number above 0")
        if not 0 < self.holdout <= MAX_HOLDOUT:
            raise ValueError(f"--holdout is {self.holdout}; expected a share up to {MAX_HOLDOUT}, such as 0.3")
        if self.search not in SEARCHES:
            raise ValueError(f"--search is {self.search}; expected {', '.join(SEARCHES)}")
        self._check_team()

    def _check_problem(self) -> None:
        """Raise ValueError unless the options state one problem, and nothing that it does not have."""
        if sum(map(bool, (self.csv, self.task, self.script))) != 1:
            raise ValueError("state what to solve: --csv FILE with --target COLUMN, --task NAME, or --script FILE")
        if self.csv and not self.target:
            raise ValueError("--csv needs --target, the column to predict")
        if self.script and not self.score:
            raise ValueError("--script needs --score, the line that it prints, such as 'validation rmse: *'")
        if self.direction not in ("", "maximize", "minimize"):
            raise ValueError(f"--direction is {self.direction}; expected maximize or minimize")
        for owner, others in (("csv", OF_TABLES), ("script", OF_SCRIPTS)):
            stated = [name for name in others if getattr(self, name) and not getattr(self, owner)]
            if stated:
                raise ValueError(f"--{option_of(stated[0])} goes with --{owner}; leave it out, or state --{owner}")

    def _check_team(self) -> None:
        """Raise ValueError unless the agent and the coder can be asked."""
        for use, who, model in (("agent", self.agent, self.model), ("coder", self.coder, self.coder_model)):
            option = "--model" if use == "agent" else "--coder-model"
            if is_address(who) and not model:
                raise ValueError(f"--{use} {who} needs {option}, the name of the model there")
            if not is_address(who) and model:
                raise ValueError(f"{option} is of an endpoint, but --{use} is {who}; leave it out, or give an address")
            if who != "scripted" and not is_address(who) and not (Path(who) / "config.json").is_file():
                raise ValueError(
                    f"--{use} {who} is no model: expected scripted, a directory with a config.json, such as a run's "
                    "export, or an address such as https://api.openai.com/v1"
                )
            price = self.price if use == "agent" else self.coder_price
            if self.dollars is not None and is_address(who) and not any(price):
                prices = "--price" if use == "agent" else "--coder-price"
                raise ValueError(f"--dollars needs the prices of all endpoints: add {prices} INPUT OUTPUT")
        if self.agent != "scripted" and self.coder == "scripted" and is_address(self.agent):
            raise ValueError("--agent at an endpoint writes instructions of its own; give --coder a model too")
        if self.dollars is not None and not (is_address(self.agent) or is_address(self.coder)):
            raise ValueError("--dollars is a limit on endpoints, and none is given; leave it out")

    def require_files(self) -> None:
        """Raise ValueError if a file to read is missing."""
        for name in ("csv", "test", "script"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise ValueError(f"there is no file {file}; check --{name}")

    @property
    def task_file(self) -> Path | None:
        """The `task.yaml` of a task that is given by its folder, None if it is given by its name."""
        file = user_path(self.task) / "task.yaml"
        return file.absolute() if self.task and file.is_file() else None

    def absolute(self) -> "SolveOptions":
        """Return the options with absolute paths, which mean the same in any folder."""
        paths = {name: path.absolute() for name in PATHS if (path := getattr(self, name)) is not None}
        models = {
            name: str(Path(who).absolute()) for name in ("agent", "coder") if Path(who := getattr(self, name)).is_dir()
        }
        task = str(self.task_file.parent) if self.task_file else self.task
        return replace(self, **paths, **models, task=task)

    def dollars_of(self, use: str) -> float | None:
        """Return the limit of one endpoint, `agent` or `coder`: half of it all if both cost money."""
        both = any(self.price) and any(self.coder_price)
        return None if self.dollars is None else self.dollars / (2 if both else 1)


def option_of(name: str) -> str:
    """Return the name of the option of the command that sets a field."""
    return {"id_column": "id"}.get(name, name.replace("_", "-"))


class SolveLayout:
    """The paths in the folder of a result."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.best = root / "best"
        self.report = root / "report.html"
        self.result = root / "result.json"
        self.work = root / "work"
        self.log = root / "work/log.txt"
        self.options = root / "work/options.json"
        self.problem = root / "work/problem.json"
        self.task = root / "work/task"
        self.data = root / "work/data"
        self.parts = root / "work/parts"
        self.blobs = root / "work/blobs"
        self.result_cache = root / "work/cache"
        self.temporary = root / "work/tmp"
        self.search = root / "work/search.jsonl"
        self.exchanges = root / "work/exchanges"
        self.coder_log = root / "work/coder.log"
        self.server_log = root / "work/server.log"
