"""The names of the files and folders in a run directory.

`mlagent_jax.run.run_dir` locks and fills such a directory; `rollout.dataset.viewer` reads one. Stages declare their
outputs with the names below.
"""

from pathlib import Path

BLOBS = "blobs"
DATA = "data"
RESULT_CACHE = "cache"
TEMPORARY = "tmp"
IDEAS = "ideas.json"
TRAJECTORIES = "trajectories"
SELECTION = "selection.json"
TOKENIZER = "tokenizer"
SFT = "sft"
PPO = "ppo"
EVALUATION = "evaluate"
EXPORT = "export"

# Names of evaluations, in the order of training: the initial script alone, the checkpoint that training starts from,
# and the policy after each stage of training.
EVALUATED = ("initial", "pretrained", "sft", "ppo")
POLICIES = EVALUATED[1:]


class RunLayout:
    """The paths in the run directory at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, *parts: str) -> Path:
        """Return a path inside the run directory."""
        return self.root.joinpath(*parts)

    @property
    def config(self) -> Path:
        """The run's configuration, every value written out, as YAML."""
        return self.path("config.yaml")

    @property
    def summary(self) -> Path:
        """The figures of all stages, as JSON."""
        return self.path("summary.json")

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path("report.html")

    @property
    def trajectory_page(self) -> Path:
        """The HTML page that shows every trajectory."""
        return self.path("trajectories.html")

    @property
    def diversity(self) -> Path:
        """The diversity of the edits, as JSON."""
        return self.path("diversity.json")

    @property
    def metrics(self) -> Path:
        """The figures of each training step, as JSON lines."""
        return self.path("metrics.jsonl")

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files, one subfolder for each stage."""
        return self.path("tensorboard")

    @property
    def tracking(self) -> Path:
        """The folder of what tracking services have, one subfolder for each."""
        return self.path("tracking")

    @property
    def artifacts(self) -> tuple[Path, ...]:
        """The files and folders that tracking services keep of a finished run."""
        pages = self.report, self.trajectory_page
        return self.config, self.summary, self.metrics, *pages, self.trajectories, self.evaluation, self.export

    @property
    def timeline(self) -> Path:
        """The spans of work, in the Trace Event Format."""
        return self.path("timeline.json")

    @property
    def log(self) -> Path:
        """The log of the leading process."""
        return self.path("log.txt")

    def follower_log(self, process: int) -> Path:
        """Return the log of a process other than 0, by its number."""
        return self.path(f"log.{process}.txt")

    @property
    def server_log(self) -> Path:
        """The output of the policy server."""
        return self.path("server.log")

    @property
    def temporary(self) -> Path:
        """The folder of temporary files, removed at the end."""
        return self.path(TEMPORARY)

    @property
    def stages(self) -> Path:
        """The folder of the stages' records."""
        return self.path("stages")

    def record(self, stage: str) -> Path:
        """Return the record of a finished stage."""
        return self.stages / f"{stage}.json"

    @property
    def replaced(self) -> Path:
        """The folder of outputs whose inputs have changed since."""
        return self.path("replaced")

    @property
    def data(self) -> Path:
        """The folder of the prepared tasks."""
        return self.path(DATA)

    @property
    def blobs(self) -> Path:
        """The content-addressed store of workspaces."""
        return self.path(BLOBS)

    @property
    def result_cache(self) -> Path:
        """The cache of script results."""
        return self.path(RESULT_CACHE)

    @property
    def compiled_programs(self) -> Path:
        """JAX's persistent compilation cache."""
        return self.path("programs")

    @property
    def exchanges(self) -> Path:
        """The folder of the journals of requests to endpoints, one subfolder for each endpoint."""
        return self.path("exchanges")

    @property
    def ideas(self) -> Path:
        """The idea pool of every task, as JSON."""
        return self.path(IDEAS)

    @property
    def trajectories(self) -> Path:
        """The folder of the expert's trajectories."""
        return self.path(TRAJECTORIES)

    @property
    def selection(self) -> Path:
        """The manifest of the trajectories that are trained on, as JSON."""
        return self.path(SELECTION)

    @property
    def tokenizer(self) -> Path:
        """The folder of the policy's tokenizer."""
        return self.path(TOKENIZER)

    @property
    def sft_checkpoints(self) -> Path:
        """The folder of the checkpoints of fine-tuning."""
        return self.path(SFT, "checkpoints")

    @property
    def pretrained_canary(self) -> Path:
        """The folder of the canary of the checkpoint that fine-tuning started from."""
        return self.path(SFT, "pretrained")

    @property
    def sft_policy(self) -> Path:
        """The fine-tuned policy, a Hugging Face directory."""
        return self.path(SFT, "model")

    @property
    def ppo_checkpoints(self) -> Path:
        """The folder of the checkpoints of PPO."""
        return self.path(PPO, "checkpoints")

    @property
    def ppo_actions(self) -> Path:
        """The folder of the journals of actions, one file for each update."""
        return self.path(PPO, "actions")

    @property
    def ppo_policy(self) -> Path:
        """The policy after PPO, a Hugging Face directory."""
        return self.path(PPO, "model")

    @property
    def evaluation(self) -> Path:
        """The folder of the evaluation, one subfolder of trajectories for each policy."""
        return self.path(EVALUATION)

    def evaluated(self, policy: str) -> Path:
        """Return the folder of the evaluation trajectories of one of `EVALUATED`."""
        return self.evaluation / policy

    @property
    def edit_stats(self) -> Path:
        """The statistics of the edits of the evaluated policies, as JSON."""
        return self.evaluation / "edits.json"

    @property
    def export(self) -> Path:
        """The exported policy, a Hugging Face directory."""
        return self.path(EXPORT)
