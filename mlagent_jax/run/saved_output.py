"""Check the output of finished stages before other stages read it."""

from rollout.storage.digests import require_whole
from rollout.storage.run_layout import RunLayout


def require_policy(layout: RunLayout, *stages: str) -> None:
    """Raise CorruptRecord, with a remedy, if a policy of the stages, `sft` or `ppo`, or the tokenizer is damaged."""
    for stage in stages:
        require_whole(layout.path(stage, "model"), layout.record(stage))
    require_whole(layout.tokenizer, layout.record("sft"))


def require_trajectories(layout: RunLayout) -> None:
    """Raise CorruptRecord, with a remedy, if a file of the collected trajectories is damaged or missing."""
    require_whole(layout.trajectories, layout.record("collect"))
