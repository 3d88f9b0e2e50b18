"""Everything a run can be told: one frozen dataclass a section, the quickstart's values as defaults.

`mlagent_jax.configuration.loading` turns YAML and `key.sub=value` into a `Config`. The string under a key is its
meaning, shown by `--help` and beside an error in its value.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rollout.dataset.selection import Select
from rollout.executor.options import Options
from tasks.reward import PAPER, Rules

Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ConfigError(ValueError):
    """A setting that cannot be used: what it is, what was expected, what to do."""


@dataclass(frozen=True, config=_STRICT)
class Tasks:
    """Which ML problems are learnt from and which are only evaluated."""

    held_in: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "customer_churn",
        "diamond_price",
        "digit_images",
        "house_price",
        "movie_sentiment",
    )
    """Tasks to learn from; `python -m tasks list` shows the catalog."""
    held_out: tuple[str, ...] = ("hotel_rate", "leaf_species", "tweet_device")
    """Tasks seen only in evaluation."""
    paths: tuple[str, ...] = ()
    """Folders with tasks of your own, or such tasks; `python -m tasks new` makes one."""
    raw: str | None = None
    """Folder of files that tasks are made of, those of a task in a folder of its name; null: they are fetched."""


@dataclass(frozen=True, config=_STRICT)
class EndpointModel:
    """Who writes for us: the offline part that ships, or a model behind an OpenAI-compatible endpoint."""

    kind: Literal["offline", "endpoint"] = "offline"
    """offline: scripted, needs no network; endpoint: a model behind an OpenAI-compatible API."""
    base_url: str | None = None
    """Address of the endpoint, such as https://api.openai.com/v1; only for kind endpoint."""
    model: str | None = None
    """Name of the model at the endpoint; only for kind endpoint."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key, which is never stored; null: it asks for none."""
    max_concurrent: Count = 8
    """Requests to the endpoint under way at one time; at least as many episodes are."""
    timeout_seconds: Positive = 120.0
    """Seconds a request may take, before it is made once more."""
    max_response_tokens: Count = 4096
    """Tokens of an answer at most; what a model thinks aside counts, too."""
    requests_per_minute: Count | None = None
    """Requests sent in any minute at most; null: as many as max_concurrent gives."""
    tokens_per_minute: Count | None = None
    """Tokens of requests and answers in any minute at most; null: any number."""
    budget_tokens: Count | None = None
    """Tokens of requests and answers in the whole run at most, after which the stage stops; null: any number."""
    budget_dollars: Positive | None = None
    """Dollars spent in the whole run at most, after which the stage stops; it takes the prices; null: any sum."""
    input_price: NonNegative = 0.0
    """Dollars for a million tokens of a request."""
    cached_input_price: NonNegative | None = None
    """Dollars for a million tokens of a request that the endpoint has in its prefix cache; null: input_price."""
    output_price: NonNegative = 0.0
    """Dollars for a million tokens of an answer."""


@dataclass(frozen=True, config=_STRICT)
class Ideas:
    """The pool of ideas that makes the expert explore."""

    source: Literal["offline", "endpoint", "none"] = "offline"
    """Who proposes ideas: the library that ships, or the expert's endpoint; none: the expert is left to its habits."""
    candidates_per_axis: Count = 24
    """Ideas asked of the endpoint for each axis (data, model, learning) and task; the library has its own number."""
    pool_size: Count = 10
    """Ideas kept for each axis and task."""
    rule: Literal["fps", "mean", "random"] = "fps"
    """Which are kept: fps, those farthest from one another; mean, the first paper's largest mean distance; random."""
    encoder: str | None = None
    """Folder or name of a sentence-transformers model that measures distances; null: all-MiniLM-L6-v2, as packaged."""


@dataclass(frozen=True, config=_STRICT)
class Collect:
    """The expert's trajectories."""

    source: str | None = None
    """Run directory, or folder of trajectories, whose trajectories are taken instead of collecting any, with the files
    that lie in `blobs` beside them; `python -m rollout.dataset import` makes one of conversations; null: collect."""
    num_trajectories: Count = 240
    """Trajectories to collect over all training tasks."""
    max_steps: Count = 5
    """Actions in a trajectory at most."""
    max_minutes: Positive = 5.0
    """Minutes a trajectory may take."""


@dataclass(frozen=True, config=_STRICT)
class Tokenizer:
    """The tokenizer of a policy that starts from scratch; a model read from model.path brings its own."""

    vocab_size: Count = 2304
    """Tokens of the byte-level BPE, special ones included; the text may hold fewer merges."""


@dataclass(frozen=True, config=_STRICT)
class Model:
    """The policy: a Qwen2.5-shaped transformer."""

    path: str | None = None
    """Hugging Face directory to start from; its sizes must be those below. null: from scratch."""
    num_layers: Count = 2
    """Transformer layers."""
    hidden_size: Count = 256
    """Width of the residual stream."""
    num_heads: Count = 4
    """Query heads."""
    num_kv_heads: Count = 2
    """Key/value heads, each shared by num_heads / num_kv_heads query heads."""
    intermediate_size: Count = 768
    """Width of the SwiGLU feed-forward."""
    rope_theta: Positive = 1000000.0
    """Base of the rotary position embedding."""
    induction_init: bool = True
    """Whether a model from scratch starts with heads that copy from the context (mlagent_jax.model.induction)."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding table."""
    dtype: Dtype = "float32"
    """Type the model computes in; log-probabilities and losses are always float32."""
    remat: Literal["none", "matmuls", "layer"] = "none"
    """What the backward pass makes again to save memory: nothing, all but matrix products and attention, or
    whole layers."""


@dataclass(frozen=True, config=_STRICT)
class Mesh:
    """How the trainer's devices are laid out; the product is the number of devices."""

    data: Count = 1
    """Copies of the model that share the batch."""
    fsdp: Count = 1
    """Shards of parameters and optimizer state; they share the batch too."""
    tensor: Count = 1
    """Shards of heads and feed-forward."""
    context: Count = 1
    """Shards of the sequence."""


@dataclass(frozen=True, config=_STRICT)
class OptimizerState:
    """Where the moments of every optimizer are kept between steps, and how exactly."""

    dtype: Dtype = "float32"
    """Type they are stored in; the update computes in float32."""
    offload: bool = False
    """Whether they wait in the host's memory, and come to the devices for the update only."""


@dataclass(frozen=True, config=_STRICT)
class SFT:
    """Exploration-enriched fine-tuning on the expert's trajectories."""

    wordings: Count = 6
    """Wordings each offline trajectory is rendered in, its actions and results unchanged; 1: as collected."""
    max_length: Count = 1152
    """Tokens of a trajectory at most; later turns are cut off and counted."""
    batch_size: Count = 3
    """Trajectories in a step."""
    rows_per_micro_batch: Count | None = None
    """Rows whose gradients are made at one time; those of a step are added up. null: all of a step's."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw, or muon for the weight matrices with adamw for the rest."""
    learning_rate: Positive = 6e-3
    """Peak learning rate; muon's for the matrices, half of it adamw's for the rest, or adamw's for all."""
    min_learning_rate_ratio: Share = 0.05
    """Learning rate at the end of the cosine, as a share of the peak."""
    warmup_steps: CountOrZero = 20
    """Steps of linear warm-up."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    clip_norm: Positive = 1.0
    """Global norm the gradient is clipped to."""
    num_epochs: Positive = 1.0
    """Passes over the trajectories, all wordings together, at most."""
    max_steps: Count | None = None
    """Steps at most; null: as many as the epochs give."""
    eval_every: Count = 50
    """Steps between two readings of the held-out perplexity."""
    patience: Count = 3
    """Readings without a better held-out perplexity after which training stops."""


@dataclass(frozen=True, config=_STRICT)
class Server:
    """The vLLM server that samples from the policy."""

    address: str | None = None
    """Address of a running server, such as http://10.0.0.2:8000; null: start one here and stop it afterwards."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the server started here; 0: a free one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Type the server computes in; auto: the checkpoint's."""
    max_model_len: Count = 1280
    """Prompt and response together, in tokens, at most."""
    kv_cache_mb: Count | None = 256
    """Memory of the key/value cache, in MiB; null: what the server takes of itself, on a CPU most of the memory."""
    start_timeout_seconds: Positive = 240.0
    """Seconds the server may take to answer after a start."""
    new_weights: Literal["load", "restart"] = "load"
    """load: the running server loads them; restart: it is stopped and started on them, for servers that cannot."""


@dataclass(frozen=True, config=_STRICT)
class PPO:
    """Step-wise PPO: one action from states cut out of the expert's trajectories."""

    num_updates: Count = 30
    """Updates to do."""
    states: Literal["expert", "evolving"] = "expert"
    """expert: the states of the expert's trajectories, evenly over tasks; evolving: those that the policy reached too,
    and more of those in which rewards differ most."""
    episodes: bool = False
    """false: one action from each state, step-wise as in the paper; true: from the beginnings of trajectories on to the
    end, an action credited with all that follows, which is the episode-wise PPO that the paper compares with."""
    trajectories_per_update: Count = 12
    """Trajectories whose states make one update's batch."""
    states_per_trajectory: Count = 2
    """States taken from each of them; those of one trajectory share their prefix."""
    samples_per_state: Count = 4
    """Actions sampled from each state; episodes from each beginning."""
    max_response_tokens: Count = 128
    """Tokens of an action at most."""
    acting_seconds: Positive | None = None
    """Seconds after which no more states of an update are acted in; what has begun is finished, however long it takes,
    so nothing is preferred for being fast; null: all are acted in."""
    max_staleness: CountOrZero = 0
    """Updates by which actions may begin early, while the learner works: 0 waits for each update's weights, as the
    paper does; 1 samples and runs scripts beside the learner, from weights one update old."""
    row_length: Count = 1792
    """Tokens of a training row: a shared history and the responses to its states."""
    predictions_per_row: Count | None = None
    """Tokens of responses in a row at most, whose log-probabilities are made; null: half of its tokens."""
    rows_per_micro_batch: Count = 2
    """Rows whose gradients are made at one time; gradients of a minibatch are added up."""
    temperature: Positive = 0.8
    """Sampling temperature; the update uses the same."""
    reward_clip: Positive | None = 0.5
    """Rewards beyond this size count as this size in the update, not in the figures; null: none are clipped."""
    advantage: Literal["gae", "group", "normalized_group", "leave_one_out"] = "gae"
    """gae: a critic and generalised advantage estimation. Without a critic, group: less the mean of the state's
    samples; normalized_group: that over their standard deviation (GRPO); leave_one_out: less the mean of the others."""
    whiten: bool = True
    """Whether advantages are brought to mean 0 and standard deviation 1 over the tokens of an update."""
    gamma: Share = 1.0
    """Discount from token to token; below 1 for advantage gae only."""
    lam: Share = 1.0
    """Lambda of generalised advantage estimation; below 1 for advantage gae only."""
    kl_coefficient: NonNegative = 0.02
    """Weight of the KL to the fine-tuned policy."""
    kl_in: Literal["reward", "loss"] = "reward"
    """reward: the KL is taken off the reward token by token; loss: it is a term of the loss."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimate of the KL from a sample: k1 log ratio, k2 half its square, k3 never below 0. With k1 in the reward, or
    k2 in the loss, the gradient is that of the KL."""
    entropy_coefficient: NonNegative = 0.0
    """Weight of the entropy of the next token, which the loss rewards."""
    importance_limit: Positive | None = 2.0
    """Tokens weigh as much more as the trainer finds them likelier than the server did, at most this; null: all the
    same."""
    max_logprob_mismatch: Positive | None = None
    """Mean difference of the server's log-probabilities from the trainer's, in nats a token, above which the run stops;
    null: what rounding explains, 0.002 where both compute in float32, 0.05 in bfloat16."""
    clip: Positive = 0.2
    """Clip range of the probability ratio."""
    max_update_kl: Positive | None = 1.0
    """KL from the policy before an update to that after it, in nats a response, at most: a longer step is halved until
    it fits; null: no limit, as in the paper, and no copy of the parameters."""
    value_clip: Positive = 0.5
    """Clip range of the critic's change; unused without a critic."""
    learning_rate: Positive = 3e-4
    """Learning rate of the policy."""
    critic: Literal["separate", "shared"] = "separate"
    """separate: the critic is a network of its own, from the fine-tuned weights; shared: a head of the policy's.
    Only advantage gae has a critic."""
    critic_learning_rate: Positive = 1e-3
    """Learning rate of the critic, where it is shared of its head alone; unused without a critic."""
    value_coefficient: Positive = 0.5
    """Weight of the critic's loss beside the policy's where it is shared; else unused."""
    critic_warmup_updates: CountOrZero = 2
    """First updates in which only the critic learns; unused without a critic."""
    num_epochs: Count = 1
    """Passes over each update's batch."""
    num_minibatches: Count = 2
    """Minibatches a pass is cut into."""
    clip_norm: Positive = 1.0
    """Global norm the gradients are clipped to."""
    checkpoint_every: Count = 4
    """Updates between two checkpoints."""


@dataclass(frozen=True, config=_STRICT)
class Evaluate:
    """Whole trajectories of the initial script, the fine-tuned and the PPO policy."""

    num_trajectories: Count = 4
    """Trajectories for each task and policy (K of avg@K)."""
    max_steps: Count = 5
    """Actions in a trajectory at most."""
    max_minutes: Positive = 5.0
    """Minutes a trajectory may take."""


@dataclass(frozen=True, config=_STRICT)
class Config:
    """A whole run."""

    seed: CountOrZero = 0
    """Seed of every random draw."""
    run_dir: str = "runs/quickstart"
    """Folder of the run; the same command goes on where it stopped."""
    mirror: str | None = None
    """URL that run_dir is copied to as it grows, as gs://bucket/run; another machine goes on from there."""
    tasks: Tasks = Tasks()
    executor: Options = Options()
    expert: EndpointModel = EndpointModel()
    coder: EndpointModel = EndpointModel()
    ideas: Ideas = Ideas()
    collect: Collect = Collect()
    select: Select = Select()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    mesh: Mesh = Mesh()
    optimizer_state: OptimizerState = OptimizerState()
    sft: SFT = SFT()
    server: Server = Server()
    reward: Rules = PAPER
    ppo: PPO = PPO()
    evaluate: Evaluate = Evaluate()
