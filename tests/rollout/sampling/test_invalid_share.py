"""Collections whose responses are no valid action: when they stop, and what is kept."""

import asyncio
from pathlib import Path

import pytest

from rollout.errors import ExpertError, InfrastructureError, WorthlessResult
from rollout.sampling.collection import Tally, collect, plan_collection
from rollout.sampling.invalid_share import MIN_STEPS, InvalidShare
from rollout.storage.trajectories import read_trajectories
from tasks import action as grammar


def run(toys, folder: Path, num: int, line: object, max_share: float = 0.9) -> dict[str, float]:
    """Return the figures of a collection of one-step trajectories that all have the same response."""
    invalid = InvalidShare(max_share, lambda: "do something")
    plans = plan_collection([toys.make_task("a")], num, 1, lambda task, rng: ())

    def progress(done: int, total: int, figures: dict) -> None:
        invalid.check_new(figures)

    done = collect(
        folder,
        plans,
        toys.environment,
        toys.actor([line]),
        max_steps=1,
        max_seconds=60.0,
        num_concurrent=1,
        progress=progress,
    )
    figures = asyncio.run(done)
    invalid.check_all(figures)
    return figures


def test_a_collection_without_an_action_stops_early_and_goes_on(toys, tmp_path: Path) -> None:
    for attempt in (1, 2):
        with pytest.raises(
            WorthlessResult, match=rf"{MIN_STEPS} of {MIN_STEPS} responses are no valid action.*do some"
        ):
            run(toys, tmp_path, 200, "I do not know.")
        assert len(read_trajectories(tmp_path)) == attempt * MIN_STEPS
    figures = run(toys, tmp_path, 200, toys.respond(grammar.FINAL_ANSWER, final_answer="SCRIPT"))
    assert (figures["num_steps"], figures["num_invalid"]) == (200, 2 * MIN_STEPS)


def test_a_short_collection_without_an_action_is_judged_at_its_end(toys, tmp_path: Path) -> None:
    with pytest.raises(WorthlessResult, match="3 of 3 responses are no valid action, more than collect.max_invalid_sh"):
        run(toys, tmp_path, 3, "I do not know.")
    assert len(read_trajectories(tmp_path)) == 3
    assert run(toys, tmp_path, 3, "I do not know.", max_share=1.0)["invalid_share"] == 1.0


def test_the_share_that_needed_leniency_is_of_the_valid_responses(toys, tmp_path: Path) -> None:
    answer = toys.respond(grammar.FINAL_ANSWER, final_answer="SCRIPT")
    tally = Tally()
    for number, line in enumerate([answer, answer, f"{answer}\nThat is all.", "I do not know."]):
        run(toys, tmp_path / str(number), 1, line, max_share=1.0)
        (trajectory,) = read_trajectories(tmp_path / str(number))
        tally.add(trajectory, None)
    figures = tally.figures()
    assert [figures[name] for name in ("num_steps", "num_valid", "num_lenient")] == [4, 3, 1]
    assert figures["lenient_share"] == pytest.approx(1 / 3)


def test_a_collection_without_a_response_is_worthless(toys, tmp_path: Path) -> None:
    with pytest.raises(WorthlessResult, match="none of 3 trajectories has a response to learn from; do something"):
        run(toys, tmp_path, 3, None)


@pytest.mark.parametrize(("num_invalid", "num_steps", "stops"), [(9, 10, False), (10, 10, True), (91, 100, True)])
def test_the_share_is_judged_exactly(num_invalid: int, num_steps: int, stops: bool) -> None:
    figures = {**Tally().figures(), "num_invalid": num_invalid, "num_steps": num_steps}
    if stops:
        with pytest.raises(WorthlessResult):
            InvalidShare(0.9, str).check_all(figures)
    else:
        InvalidShare(0.9, str).check_all(figures)


def test_a_collection_that_lost_its_only_episode_fails_with_the_cause(toys, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="1 of 1 episodes were lost.*the last one by ExpertError: it is down"):
        run(toys, tmp_path, 1, ExpertError("it is down"))
