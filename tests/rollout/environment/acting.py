"""Execute one action in the toy task."""

import asyncio

from rollout.environment.environment import StepResult
from rollout.types import Snapshot

BEST = "Best so far: cedar.py 0.5000"


def step(toys, response: str, snapshot: Snapshot | None = None) -> StepResult:
    start = toys.environment.start(toys.instance)
    return asyncio.run(toys.environment.step(toys.instance, snapshot or start, response))


def text(toys, result: StepResult, name: str) -> str:
    return toys.store.get(result.after.files[name]).decode()
