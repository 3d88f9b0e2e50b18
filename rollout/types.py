"""The records that cross the seams of a rollout, and the Protocols behind which its parts stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from tasks.feedback import Feedback
from tasks.naming import Names
from tasks.state import State, Turn
from tasks.task import Instance, Limits


def is_folder(name: str) -> bool:
    """Return whether a name of a workspace, such as `train/`, stands for a folder; its digest is a manifest's then."""
    return name.endswith("/")


@dataclass(frozen=True)
class Completion:
    """One sampled response, as tokens; text never crosses the wire to the learner.

    Attributes:
        token_ids: the response, its end-of-turn token included when the model ended it.
        logprobs: the sampler's log-probability of each token, natural log, at the sampling temperature.
        policy_version: the version of the weights that wrote it.
        finish_reason: `stop` (the model ended it) or `length` (cut at the token limit).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    finish_reason: str


@runtime_checkable
class Policy(Protocol):
    """Something that continues token prefixes: the policy server's client, or a fake."""

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        """Return `num_samples` responses to one prompt. Raises ServerError."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """Everything the environment needs to go on from a state; immutable, so any state can be restored.

    Attributes:
        files: the workspace, file name to content hash in the `BlobStore`; a name that ends in a slash is a folder's.
        metric: m_t, the hidden score of the last edit that ran in this trajectory, else m_init.
        last_submission: the hidden score of the last valid submission, None before there is one.
        best_script: best script so far by its own validation score, as the agent was told.
        best_score: that validation score.
    """

    files: Mapping[str, str]
    metric: float
    last_submission: float | None
    best_script: str
    best_score: float


@dataclass(frozen=True)
class Step:
    """One action of a trajectory and what came of it.

    Attributes:
        response: the agent's whole response text.
        action: the action's name, `` if the response was invalid.
        arguments: its arguments.
        feedback: the environment's answer.
        before: the snapshot the action was done in.
        after: the snapshot it left.
        seconds: wall clock of the action in the environment, 0 for a recorded result.
        wording: what the offline expert meant, as JSON, from which the response can be worded anew; `` otherwise.
    """

    response: str
    action: str
    arguments: Mapping[str, str]
    feedback: Feedback
    before: Snapshot
    after: Snapshot
    seconds: float
    wording: str = ""


@dataclass(frozen=True)
class Trajectory:
    """One episode: the instance, the ideas it was to try, its steps and how it ended.

    Attributes:
        trajectory_id: unique in a collection.
        task: the task's name.
        seed: the seed every draw of this episode came from.
        names: the episode's surface names.
        problem: s_0 as the learner reads it (without ideas).
        ideas: what the expert was asked to try; empty for a policy's trajectory.
        steps: oldest first.
        end: `final_answer`, `step_limit`, `time_limit` or `context_limit`.
    """

    trajectory_id: str
    task: str
    seed: int
    names: Names
    problem: str
    ideas: tuple[str, ...]
    steps: tuple[Step, ...]
    end: str

    def state(self, num_turns: int | None = None) -> State:
        """Return the state after the first `num_turns` steps (all of them by default)."""
        turns = (Turn(step.response, step.feedback.text) for step in self.steps[:num_turns])
        return State(self.problem, tuple(turns))

    def score(self, m_init: float) -> float:
        """Return the trajectory's score: its last valid submission, `m_init` if there is none."""
        last = self.steps[-1].after.last_submission if self.steps else None
        return m_init if last is None else last


class Exit(StrEnum):
    """How one script run ended."""

    OK = "ok"
    CRASHED = "crashed"  # the script exited non-zero
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    KILLED = "killed"  # died of a signal that no limit of ours explains
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Job:
    """One script to run.

    Attributes:
        script: the name of the script in `files`.
        files: the workspace, file name to content hash; a name that ends in a slash is a folder's.
        limits: what the run may use.
        deterministic: whether a recorded result of the same job may stand for a run.
        read_only: names among `files` that the script may read only: they are mounted, not copied. Folders always are.
        task: whose script it is; scripts that wait take turns by it.
    """

    script: str
    files: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    read_only: frozenset[str] = frozenset()
    task: str = ""

    def __post_init__(self) -> None:
        copied = [name for name in self.files if is_folder(name) and name not in self.read_only]
        assert not copied, f"folders {copied} of a job are to be copied, expected all in read_only"


@dataclass(frozen=True)
class Execution:
    """What one script run did.

    Attributes:
        exit: how it ended.
        output: standard output and error together, middle cut out where too long.
        submission: content of `submission.csv`, None if the run left none (or no regular file).
        seconds: wall clock of the run, whole.
        tier: the isolation it ran under (`bubblewrap-root`, `bubblewrap-user`, `landlock`).
        cached: whether this is a recorded result.
    """

    exit: Exit
    output: str
    submission: bytes | None
    seconds: float
    tier: str
    cached: bool = False


@runtime_checkable
class Executor(Protocol):
    """Something that runs scripts in isolation: the sandbox pool, or a fake."""

    async def run(self, job: Job) -> Execution:
        """Return what the script did. Raises ExecutorError when nothing is known about it."""
        ...


@dataclass(frozen=True)
class CoderReply:
    """The coder's answer to an edit: the new source, or why there is none."""

    source: str | None
    reason: str = ""


@runtime_checkable
class Coder(Protocol):
    """Something that writes code for Edit Script and text for Understand File."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or that it cannot. Raises CoderError."""
        ...

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return a short description of a file. Raises CoderError."""
        ...


@dataclass(frozen=True)
class Response:
    """An actor's next response; `completion` when a policy sampled it."""

    text: str
    wording: str = ""
    completion: Completion | None = None


@runtime_checkable
class Actor(Protocol):
    """Whoever acts in an episode: the expert, or a policy behind its tokenizer."""

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the next response, or None where the state no longer fits the context."""
        ...
