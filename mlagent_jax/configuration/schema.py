"""The keys of a run's configuration: one frozen dataclass per section, with the paper's values as defaults.

The paper is ML-Agent (arXiv 2505.23723). If it does not state a value, the default is that of the trainer it used.
Defaults that depend on the machine suit one device. `mlagent_jax.configuration.loading` turns YAML and `key.sub=value`
into a `Config`. The string under a key is its meaning: `--help-keys` prints it, and so does an error about the key's
value.
"""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mlagent_jax.configuration.config_error import ConfigError as ConfigError
from mlagent_jax.configuration.endpoint_models import PAPER_CODER, PAPER_EXPERT, CoderModel, ExpertModel
from mlagent_jax.configuration.network import Adapter, Mesh, Model, Tokenizer, Trainer
from mlagent_jax.configuration.value_types import (
    STRICT,
    BelowOne,
    Count,
    CountOrZero,
    Dtype,
    Fraction,
    Gpus,
    NonNegative,
    Positive,
    Share,
)
from rollout.options import ExecutorOptions, Observation, Select, UserPath
from tasks.prompt import Prompt
from tasks.reward import Rules
from tasks.system_text import system_text


@dataclass(frozen=True, config=STRICT)
class Tasks:
    """The machine-learning tasks that the policy trains on and is evaluated on."""

    held_in: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "aerial-cactus-identification",
        "cifar-10",
        "dogs-vs-cats-redux-kernels-edition",
        "feedback-prize-english-language-learning",
        "home-data-for-ml-course",
        "nomad2018-predict-transparent-conductors",
        "ogbn-arxiv",
        "plant-pathology-2020-fgvc7",
        "spaceship-titanic",
    )
    """Names of the tasks to train on; `mlagent tasks list` prints all tasks."""
    held_out: tuple[str, ...] = (
        "denoising-dirty-documents",
        "detecting-insults-in-social-commentary",
        "jigsaw-toxic-comment-classification-challenge",
        "leaf-classification",
        "learning-agency-lab-automated-essay-scoring-2",
        "spooky-author-identification",
        "statoil-iceberg-classifier-challenge",
        "tabular-playground-series-dec-2021",
        "us-patent-phrase-to-phrase-matching",
        "whale-categorization-playground",
    )
    """Names of the tasks that are only evaluated."""
    paths: tuple[UserPath, ...] = ()
    """Folders of your own tasks, or folders that contain such folders; `mlagent tasks new` makes one."""
    raw: UserPath | None = None
    """Folder of raw data files, with a subfolder named after each task; null: they are downloaded."""


@dataclass(frozen=True, config=STRICT)
class Ideas:
    """The pool of ideas that makes the expert explore."""

    source: Literal["library", "endpoint", "none"] = "endpoint"
    """library: the bundled idea library; endpoint: the expert's endpoint proposes ideas; none: the expert gets no
    ideas."""
    candidates_per_axis: Count = 100
    """Number of ideas that the endpoint is asked for, per axis (data, model, learning) and task; only for source
    endpoint."""
    pool_size: Count = 10
    """Number of ideas kept per axis and task."""
    rule: Literal["fps", "mean", "random"] = "fps"
    """Rule that selects them. fps: farthest-point sampling; mean: largest mean distance, as in the paper's first
    version; random."""
    encoder: UserPath | None = None
    """Folder or name of the sentence-transformers model that embeds ideas; null: all-MiniLM-L6-v2 from its package."""


@dataclass(frozen=True, config=STRICT)
class Collect:
    """The collection of expert trajectories."""

    source: UserPath | None = None
    """Run directory or folder whose trajectories are used instead of collecting any; their files must be in `blobs`
    beside them. `mlagent data import` makes such a folder from conversations. null: the expert collects."""
    num_trajectories: Count = 10000
    """Number of trajectories to collect over all held-in tasks."""
    max_steps: Count = 15
    """Maximum actions of a trajectory."""
    max_minutes: Positive = 30.0
    """Time limit of a trajectory, in minutes."""
    max_invalid_share: Share = 0.9
    """Maximum share of responses that are no valid action; the stage stops above it. 1: it never stops."""


@dataclass(frozen=True, config=STRICT)
class OptimizerState:
    """The storage of every optimizer's moments between steps."""

    dtype: Dtype = "float32"
    """Type that the moments are stored in; the update computes in float32."""
    offload: bool = False
    """Whether the moments are kept in host memory and moved to the devices only for the update. Eight GPUs of 80 GB
    train 7 billion parameters without."""


@dataclass(frozen=True, config=STRICT)
class SFT:
    """Exploration-enriched fine-tuning on the expert's trajectories."""

    wordings: Count = 1
    """Number of wordings that each scripted trajectory is rendered in, with the same actions and results; 1: as
    collected."""
    max_length: Count = 15000
    """Maximum tokens of a trajectory; later turns are cut off and counted."""
    batch_size: Count = 64
    """Number of trajectories per step, on average: trajectories are packed into rows, and each step takes the number of
    rows that holds this many. Every wording of a trajectory counts."""
    rows_per_micro_batch: Count | None = None
    """Number of rows per forward and backward pass; gradients are accumulated over a step. null: all rows of a step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon for the weight matrices with adamw for the other parameters."""
    learning_rate: Positive = 2e-5
    """Peak learning rate; with muon, adamw's is half of it."""
    min_learning_rate_ratio: Share = 0.0
    """Learning rate at the end of the cosine schedule, as a share of the peak."""
    warmup_steps: CountOrZero = 0
    """Number of steps of linear warm-up."""
    adam_b2: BelowOne = 0.999
    """Decay of adamw's mean of squared gradients per step."""
    clip_norm: Positive = 1.0
    """Maximum global norm of the gradient."""
    num_epochs: Positive = 2.0
    """Maximum number of passes over the trajectories in all their wordings."""
    max_steps: Count | None = None
    """Maximum number of steps; null: limited only by num_epochs."""
    eval_every: Count = 20
    """Number of steps between measurements of the validation perplexity."""
    patience: Count | None = None
    """Number of measurements without a better validation perplexity after which training stops; null: it never stops
    early."""


@dataclass(frozen=True, config=STRICT)
class Server:
    """The vLLM server that samples from the policy."""

    address: str | None = None
    """Address of a running server, such as http://10.0.0.2:8000; null: the run starts and stops its own."""
    api_key_env: str = "MLAGENT_SERVER_KEY"
    """Name of the environment variable that holds the key of the server at address; the key is never stored. The run's
    own server gets a random key."""
    gpus: Gpus | None = None
    """Numbers or UUIDs of the GPUs that the server uses, tensor_parallel times data_parallel of them; null: the first
    that neither the trainer nor executor.gpus uses, or the trainer's if there are no others."""
    memory_fraction: Fraction | None = None
    """Share of the memory of each of its GPUs that the server takes, weights and cache together; null: 0.9, or 0.3 on
    GPUs that it shares with the trainer. On a CPU, of the machine's memory."""
    tensor_parallel: Count = 1
    """Number of GPUs that share one replica of the policy."""
    data_parallel: Count = 1
    """Number of replicas of the policy, which the server balances requests over."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the run's own server; 0: a free port."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "bfloat16"
    """Type that the server computes in; auto: the checkpoint's."""
    max_model_len: Count = 16384
    """Maximum tokens of a prompt and its response together."""
    kv_cache_mb: Count | None = None
    """Size of the key/value cache on each device, in MiB; null: what memory_fraction leaves, most of the memory on a
    CPU."""
    start_timeout_seconds: Positive = 1800.0
    """Time that the server may take to start, or to answer at address when it is first needed, in seconds."""
    new_weights: Literal["load", "restart"] = "load"
    """Method of weight updates. load: the running server loads new weights; restart: the server is restarted on them,
    for servers that cannot load any."""
    weight_transfer: Literal["files", "nccl", "adapter"] = "files"
    """Way of new weights to a running server. files: whole weights, through memory to the run's own server, else
    through the run directory; nccl: whole weights, from the trainer's first GPU to those of the server, which must be
    others; adapter: only the adapter, which the server applies to the weights at model.path."""


@dataclass(frozen=True, config=STRICT)
class PPO:
    """Step-wise PPO: one action from each state; the states are prefixes of the expert's trajectories."""

    num_updates: Count = 39
    """Number of updates."""
    states: Literal["expert", "evolving"] = "expert"
    """expert: states of the expert's trajectories, balanced over tasks; evolving: also states that the policy reached,
    and states whose rewards differ most are drawn more often."""
    episodes: bool = False
    """false: step-wise PPO as in the paper, one action per state; true: episode-wise PPO, which the paper compares
    with: episodes from the start of a trajectory, in which an action is credited with all later rewards."""
    trajectories_per_update: Count = 256
    """Number of trajectories whose states form the batch of an update."""
    states_per_trajectory: Count = 1
    """Number of states per trajectory; states of one trajectory share their prefix."""
    samples_per_state: Count = 1
    """Number of actions sampled from each state, or of episodes from each start."""
    max_response_tokens: Count = 1024
    """Maximum tokens of an action."""
    acting_seconds: Positive | None = None
    """Time after which an update starts no more actions, in seconds; started actions are finished, so that fast ones
    are not favored. null: no limit."""
    max_masked_share: Share = 0.1
    """Maximum share of an update's actions that may be lost to failures of the infrastructure, such as a coder that is
    down. Above it nothing is learned: the lost actions run again for up to an hour, then the run stops."""
    max_staleness: CountOrZero = 0
    """Maximum number of updates by which the sampling weights lag behind. 0: actions wait for each update, as in the
    paper; 1: actions run while the learner trains."""
    row_length: Count = 16384
    """Tokens of a training row, which holds a shared history and the responses to its states."""
    predictions_per_row: Count | None = None
    """Maximum response tokens of a row; null: half of row_length."""
    rows_per_micro_batch: Count = 1
    """Number of rows per forward and backward pass; gradients are accumulated over a minibatch."""
    temperature: Positive = 1.0
    """Sampling temperature, used by the update as well."""
    reward_clip: Positive | None = None
    """Maximum absolute reward in the update; logged rewards are not clipped. null: no limit."""
    advantage: Literal["gae", "batch", "group", "normalized_group", "leave_one_out"] = "gae"
    """gae: generalized advantage estimation with a critic. Without a critic: batch subtracts the mean reward of the
    update; group subtracts that of the state's samples; normalized_group also divides by their standard deviation
    (GRPO); leave_one_out subtracts the mean of the other samples."""
    whiten: bool = True
    """Whether advantages are normalized to mean 0 and standard deviation 1 over the tokens of an update."""
    gamma: Share = 1.0
    """Discount factor per token; must be 1 unless advantage is gae."""
    lam: Share = 1.0
    """Lambda of generalized advantage estimation; must be 1 unless advantage is gae."""
    kl_coefficient: NonNegative = 0.001
    """Weight of the KL divergence from the fine-tuned policy."""
    kl_in: Literal["reward", "loss"] = "reward"
    """reward: the KL is subtracted from each token's reward; loss: it is a term of the loss."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the KL from a sample. k1: log-ratio; k2: half its square; k3: never negative. k1 in the reward and
    k2 in the loss have the gradient of the KL."""
    entropy_coefficient: NonNegative = 0.0
    """Weight of the entropy bonus in the loss."""
    importance_limit: Positive | None = 2.0
    """Maximum of a token's importance weight, the ratio of the trainer's probability to the server's; null: all weights
    are 1."""
    max_logprob_mismatch: Positive | None = None
    """Mean absolute difference between the server's and the trainer's log-probabilities, in nats per token, above which
    the run stops; it also stops if the 99th percentile is above 7 (float32) or 6 (bfloat16) times that. null: what
    rounding explains, 0.005 in float32 and 0.05 in bfloat16."""
    clip: Positive = 0.2
    """Clip range of the probability ratio."""
    max_update_kl: Positive | None = None
    """Maximum KL between the policies before and after an update, in nats per response; a longer step is halved until
    it fits. null: no limit, as in the paper, and no copy of the parameters."""
    value_clip: Positive = 0.5
    """Clip range of the critic's change; ignored without a critic."""
    learning_rate: Positive = 1e-6
    """Learning rate of the policy."""
    critic: Literal["separate", "shared"] = "separate"
    """separate: a network of its own, initialized from the fine-tuned weights; shared: a value head on the policy. Only
    for advantage gae."""
    critic_learning_rate: Positive = 1e-5
    """Learning rate of the critic, or of the shared value head; ignored without a critic."""
    value_coefficient: Positive = 0.5
    """Weight of the critic's loss if the critic is shared; else ignored."""
    critic_warmup_updates: CountOrZero = 0
    """Number of first updates that train only the critic; ignored without a critic."""
    num_epochs: Count = 1
    """Number of passes over the batch of an update."""
    num_minibatches: Count = 1
    """Number of minibatches, and so of optimizer steps, per pass."""
    adam_b2: BelowOne = 0.999
    """Decay of adamw's mean of squared gradients per step."""
    clip_norm: Positive = 1.0
    """Maximum global norm of the gradient."""
    checkpoint_every: Count = 5
    """Number of updates between checkpoints."""

    @property
    def has_own_critic(self) -> bool:
        """Whether the critic is a separate network."""
        return self.advantage == "gae" and self.critic == "separate"

    @property
    def num_predictions(self) -> int:
        """The maximum number of response tokens of a row."""
        return self.predictions_per_row or self.row_length // 2


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    """The evaluation of the initial script and of the policy in its stages of training by whole trajectories."""

    num_trajectories: Count = 8
    """Number of trajectories per task and policy (the K of avg@K)."""
    pretrained: bool = False
    """Whether the checkpoint at model.path is evaluated too, as it is before any training."""
    max_steps: Count = 15
    """Maximum actions of a trajectory."""
    max_minutes: Positive = 30.0
    """Time limit of a trajectory, in minutes."""
    constrained: bool = False
    """Whether the server constrains the policies to valid actions, by a grammar."""


@dataclass(frozen=True, config=STRICT)
class Config:
    """The configuration of a whole run."""

    seed: CountOrZero = 0
    """Seed of every random draw."""
    run_dir: UserPath = "runs/default"
    """Run directory; the same command resumes a run."""
    mirror: UserPath | None = None
    """URL that run_dir is copied to as it grows, such as gs://bucket/run, so that another machine can resume the run;
    null: no copy."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Tracking services that also get the figures of metrics.jsonl. Each needs the extra of its name."""
    tasks: Tasks = Tasks()
    executor: ExecutorOptions = ExecutorOptions()
    prompt: Prompt = Prompt()
    observation: Observation = Observation()
    expert: ExpertModel = PAPER_EXPERT
    coder: CoderModel = PAPER_CODER
    ideas: Ideas = Ideas()
    collect: Collect = Collect()
    select: Select = Select()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    adapter: Adapter = Adapter()
    mesh: Mesh = Mesh()
    trainer: Trainer = Trainer()
    optimizer_state: OptimizerState = OptimizerState()
    sft: SFT = SFT()
    server: Server = Server()
    reward: Rules = Rules()
    ppo: PPO = PPO()
    evaluate: Evaluate = Evaluate()

    @property
    def sft_adapter(self) -> Adapter:
        """The section `adapter` as fine-tuning has it: without a rank if it trains all weights."""
        return replace(self.adapter, rank=None) if self.adapter.first_stage == "ppo" else self.adapter

    @property
    def served_rank(self) -> int:
        """The rank of the adapters that the policy server takes as new weights; 0 if it takes whole weights."""
        return (self.adapter.rank or 0) if self.server.weight_transfer == "adapter" else 0

    @property
    def served_base(self) -> UserPath | None:
        """The model that the policy server is started on if it takes adapters, None for the fine-tuned policy."""
        return self.model.path if self.served_rank and self.sft_adapter.rank else None

    @property
    def system_text(self) -> str:
        """The system message of every prompt."""
        return system_text(self.prompt.system, self.observation.script_lines)
