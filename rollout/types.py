"""The records that the parts of a rollout exchange, and the protocols that the parts implement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from tasks.feedback import Feedback
from tasks.naming import Names
from tasks.state import State, Turn
from tasks.task import Instance, Limits


def is_folder(name: str) -> bool:
    """Return whether a name in a workspace, such as `train/`, is a folder; its digest is then that of a manifest."""
    return name.endswith("/")


@dataclass(frozen=True)
class Completion:
    """One sampled response, as tokens; text never crosses the wire to the learner.

    Attributes:
        token_ids: The response, with its end-of-turn token if the model ended it.
        logprobs: The sampler's log-probability of each token at the sampling temperature, in nats.
        policy_version: The version of the weights that wrote it.
        finish_reason: `stop` if the model ended it, `length` if it was cut at the token limit.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    finish_reason: str


@runtime_checkable
class Policy(Protocol):
    """A sampler of continuations of token prefixes, such as the client of the policy server."""

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        """Return `num_samples` responses to one prompt, or raise ServerError."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """Everything that the environment needs to continue from a state; immutable, so that any state can be restored.

    Attributes:
        files: The workspace, from file name to content hash in the `BlobStore`; a folder's name ends with a slash.
        metric: m_t, the hidden score of the last edit that ran in this trajectory, or m_init before the first.
        last_submission: The hidden score of the last valid submission, or None before the first.
        best_script: The best script so far by its own validation score, as the feedback reports it.
        best_score: The validation score of the best script.
    """

    files: Mapping[str, str]
    metric: float
    last_submission: float | None
    best_script: str
    best_score: float


@dataclass(frozen=True)
class Step:
    """One action of a trajectory and its result.

    Attributes:
        response: The whole text of the agent's response.
        action: The action's name, or an empty string if the response was invalid.
        arguments: The action's arguments.
        feedback: The environment's answer.
        before: The snapshot before the action.
        after: The snapshot after the action.
        seconds: Wall-clock time of the action in the environment; 0 for a cached result.
        wording: The scripted expert's intent as JSON, from which its response can be reworded; empty for other actors.
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
    """One finished episode.

    Attributes:
        trajectory_id: An id that is unique in a collection.
        task: The name of the task.
        seed: The seed of every draw of the episode.
        names: The names of the project, files and script in the episode.
        problem: s_0 as the learner reads it, without ideas.
        ideas: The ideas that the expert was asked to try; empty for a policy's trajectory.
        steps: The steps, oldest first.
        end: The reason for the end: `final_answer`, `step_limit`, `time_limit` or `context_limit`.
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
        """Return the state after the first `num_turns` steps, by default after all."""
        turns = (Turn(step.response, step.feedback.text) for step in self.steps[:num_turns])
        return State(self.problem, tuple(turns))

    def score(self, m_init: float) -> float:
        """Return the trajectory's score: that of its last valid submission, or `m_init` if there is none."""
        last = self.steps[-1].after.last_submission if self.steps else None
        return m_init if last is None else last


class Exit(StrEnum):
    """The ways in which a script run can end."""

    OK = "ok"
    CRASHED = "crashed"  # the script exited non-zero
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    OUT_OF_PROCESSES = "out_of_processes"
    OUT_OF_FILES = "out_of_files"  # too many open at the same time
    KILLED = "killed"  # ended by a signal that none of the limits explains
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Job:
    """One script to run.

    Attributes:
        script: The name of the script in `files`.
        files: The workspace, from file name to content hash; a folder's name ends with a slash.
        limits: The resources that the run may use.
        deterministic: Whether a cached result of the same job may replace the run.
        read_only: The names in `files` that are mounted read-only instead of copied; must include every folder.
        task: The name of the task, by which waiting scripts are scheduled fairly.
    """

    script: str
    files: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    read_only: frozenset[str] = frozenset()
    task: str = ""

    def __post_init__(self) -> None:
        copied = [name for name in self.files if is_folder(name) and name not in self.read_only]
        assert not copied, f"folders {copied} of a job are not read-only; add them to read_only"


@dataclass(frozen=True)
class Execution:
    """The result of one script run.

    Attributes:
        exit: The way in which it ended.
        output: Standard output and standard error together, without the middle if it is too long.
        submission: The content of `submission.csv`, or None if the run left none or no regular file.
        seconds: Wall-clock time of the whole run.
        tier: The isolation of the run: `bubblewrap-root`, `bubblewrap-user` or `landlock`.
        cached: Whether the result comes from the result cache.
    """

    exit: Exit
    output: str
    submission: bytes | None
    seconds: float
    tier: str
    cached: bool = False


@runtime_checkable
class Executor(Protocol):
    """A runner of scripts in isolation, such as a pool of sandboxes."""

    async def run(self, job: Job) -> Execution:
        """Return the result of the script, or raise ExecutorError if nothing is known about it."""
        ...


@dataclass(frozen=True)
class CoderReply:
    """The coder's answer to an edit.

    Attributes:
        source: The edited source, or None if the coder cannot make the edit.
        reason: The reason why there is no source.
    """

    source: str | None
    reason: str = ""


@runtime_checkable
class Coder(Protocol):
    """A writer of code for Edit Script and of descriptions for Understand File."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script or the reason why there is none, or raise CoderError."""
        ...

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return a short description of a file, or raise CoderError."""
        ...


@dataclass(frozen=True)
class Response:
    """The next response of an actor.

    Attributes:
        text: The whole text.
        wording: The scripted expert's intent as JSON; empty for other actors.
        completion: The tokens, if a policy sampled the response.
    """

    text: str
    wording: str = ""
    completion: Completion | None = None


@runtime_checkable
class Actor(Protocol):
    """The source of responses in an episode: an expert, or a policy with its tokenizer."""

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the next response, or None if the state no longer fits the context."""
        ...
