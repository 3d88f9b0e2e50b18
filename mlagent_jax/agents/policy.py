"""Policies as agents: a directory that vLLM serves, under the settings of the run that it is from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.configuration.loading import load_config
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.inference.vllm_package import is_cpu_build
from rollout.options import Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.episode import PolicyActor
from rollout.storage.run_layout import RunLayout
from rollout.tokenizer.chat import ChatTokenizer
from tasks.prompt import Prompt
from tasks.response_grammar import response_grammar
from tasks.system_text import system_text

POLICY_REQUESTS = 8  # responses of a served policy at a time
CODER_CONTEXT = 8192  # tokens of a coder's prompt and its answer
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
        dtype: The type that the server computes in.
        is_trained: Whether it learned to act, so that its responses need no constraint.
    """

    prompt: Prompt = field(default_factory=lambda: Prompt(show_script=True))
    observation: Observation = field(default_factory=Observation)
    max_model_len: int = 8192
    max_response_tokens: int = 512
    temperature: float = 1.0
    dtype: str = "bfloat16"
    is_trained: bool = False

    @property
    def system(self) -> str:
        """The system message."""
        return system_text(self.prompt.system, self.observation.script_lines)


def find_policy(path: Path) -> Path:
    """Return the directory of a policy: `path`, or in it a run's `export`, or the `model` of a run's stage.

    Raises:
        ValueError: If there is none.
    """
    for folder in (path, path / "export", path / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"{path} is no model: expected a directory with a config.json, such as runs/quickstart/export, runs/quickstart "
        "or runs/quickstart/sft"
    )


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
                dtype=config.server.dtype,
                is_trained=True,
            )
    return PolicySettings()


@contextmanager
def served_policy(
    directory: Path, settings: PolicySettings, log: Path, event_loop: EventLoopThread
) -> Iterator[tuple[PolicyActor, ServerProcess]]:
    """Yield the policy in a directory and the server that samples it.

    The responses of a policy that is not trained to act obey a grammar.
    """
    tokenizer = ChatTokenizer(directory, settings.system)
    grammar = None if settings.is_trained else response_grammar(settings.max_response_tokens)
    with model_server(directory, log, settings.max_model_len, settings.dtype) as server:
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
            yield actor, server
        finally:
            event_loop.run(client.close())


def coder_server(directory: Path, log: Path) -> ServerProcess:
    """Return a server of the model in a directory as a coder, not yet started."""
    return model_server(directory, log, CODER_CONTEXT)


def model_server(directory: Path, log: Path, max_model_len: int, dtype: str = "bfloat16") -> ServerProcess:
    """Return a server of the model in a directory, not yet started."""
    cache_mb = CPU_CACHE_MB if is_cpu_build() else 0
    options = ServerOptions(dtype=dtype, max_model_len=max_model_len, kv_cache_mb=cache_mb)
    return ServerProcess(directory, log, options)
