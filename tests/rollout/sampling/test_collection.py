"""Collections: what is planned, what is resumed, what is lost."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord, ExecutorError, ExpertError, InfrastructureError
from rollout.sampling import collection as collecting
from rollout.sampling.collection import EpisodePlan, collect, plan_collection
from rollout.storage.trajectories import read_trajectories
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.naming import is_held_out


class Interrupted(Exception):
    """What a test stops a collection with."""


def plans_of(toys, num: int = 7, seed: int = 1) -> list[EpisodePlan]:
    tasks = [toys.make_task("a"), toys.make_task("b"), toys.make_task("c", split="held_out")]
    return plan_collection(tasks, num, seed, lambda task, rng: (f"idea {rng.randrange(100)} for {task.name}",))


def lines_of(toys) -> list:
    return [
        toys.edit("SCRIPT", "sky.py", correct=9, validation=0.8),
        toys.respond(grammar.FINAL_ANSWER, final_answer="sky.py"),
    ]


def run(toys, folder: Path, plans, lines, **options) -> list[Trajectory]:
    settings = {"max_steps": 4, "max_seconds": 60.0, "num_concurrent": 2} | options
    toys.last_actor = toys.actor(lines)
    figures = asyncio.run(collect(folder, plans, toys.environment, toys.last_actor, **settings))
    trajectories = read_trajectories(folder)
    assert figures["num_trajectories"] == len(trajectories)
    return trajectories


def timeless(trajectories: list[Trajectory]) -> list[Trajectory]:
    return [replace(t, steps=tuple(replace(step, seconds=0.0) for step in t.steps)) for t in trajectories]


def test_a_plan_is_balanced_over_tasks_and_depends_on_seed_and_index_alone(toys):
    plans = plans_of(toys, 12)
    assert Counter(plan.instance.task.name for plan in plans) == {"a": 4, "b": 4, "c": 4}
    assert plans_of(toys, 5) == plans[:5]
    assert plans_of(toys, 12, seed=2) != plans
    assert len({plan.seed for plan in plans}) == 12
    assert len({plan.ideas for plan in plans}) > 8
    for plan in plans:
        pair = plan.instance.names.script.removeprefix("run_").removesuffix(".py")
        assert is_held_out(pair) == (plan.instance.task.name == "c")


def test_a_collection_is_parquet_in_the_order_of_its_plans(toys, tmp_path: Path):
    seen: list[tuple[int, int, dict]] = []
    plans = plans_of(toys)
    trajectories = run(
        toys,
        tmp_path / "t",
        plans,
        lines_of(toys),
        progress=lambda done, total, figures: seen.append((done, total, dict(figures))),
    )
    assert [one.trajectory_id for one in trajectories] == [plan.trajectory_id for plan in plans]
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["part-00000.parquet"]
    assert [done for done, _, _ in seen] == list(range(8))
    figures = seen[-1][2]
    assert figures["edit_share"] == figures["non_edit_share"] == 0.5
    assert figures["submitted_share"] == 1.0
    assert figures["gain"] == pytest.approx(0.8)
    assert (figures["num_retried"], figures["num_lost"]) == (0, 0)


def test_an_interrupted_collection_goes_on_without_repeating(toys, tmp_path: Path):
    plans = plans_of(toys)
    whole = run(toys, tmp_path / "whole", plans, lines_of(toys))

    def stop(done: int, total: int, figures: object) -> None:
        if done == 3:
            raise Interrupted

    folder = tmp_path / "cut"
    with pytest.raises(Interrupted):
        run(toys, folder, plans, lines_of(toys), progress=stop, num_concurrent=1)
    journal = folder / "part-00000.jsonl"
    assert len(journal.read_bytes().splitlines()) == 3
    with journal.open("ab") as file:
        file.write(b'{"trajectory_id": "1-0')  # what a power cut leaves
    resumed = run(toys, folder, plans, lines_of(toys))
    assert len(toys.last_actor.calls) == 2 * (len(plans) - 3)
    assert timeless(resumed) == timeless(whole)
    run(toys, folder, plans, [])
    assert toys.last_actor.calls == []
    longer = run(toys, folder, plans_of(toys, 9), lines_of(toys))
    assert (len(longer), len(toys.last_actor.calls)) == (9, 4)


def test_parts_become_parquet_as_soon_as_they_are_whole_and_a_stop_anywhere_loses_none(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "PART_SIZE", 3)
    plans = plans_of(toys, 8)
    whole = run(toys, tmp_path / "whole", plans, lines_of(toys))
    assert [one.trajectory_id for one in whole] == [plan.trajectory_id for plan in plans]
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [f"part-0000{i}.parquet" for i in range(3)]
    for stop_after in range(9):
        folder = tmp_path / str(stop_after)

        def stop(done: int, total: int, figures: object, stop_after: int = stop_after) -> None:
            if done == stop_after:
                raise Interrupted

        with pytest.raises(Interrupted):
            run(toys, folder, plans, lines_of(toys), progress=stop, num_concurrent=1)
        stored = [f"part-0000{i}.parquet" for i in range((stop_after + (stop_after == 8)) // 3)]
        journals = [f"part-0000{len(stored)}.jsonl"] if 0 < stop_after < 8 and stop_after % 3 else []
        assert sorted(path.name for path in folder.glob("*")) == stored + journals
        assert timeless(run(toys, folder, plans, lines_of(toys))) == timeless(whole)
        assert len(toys.last_actor.calls) == 2 * (8 - stop_after)


def test_a_part_that_was_stored_but_kept_its_journal_counts_once(toys, tmp_path: Path):
    plans = plans_of(toys)

    def stop(done: int, total: int, figures: object) -> None:
        if done == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(toys, tmp_path, plans, lines_of(toys), progress=stop, num_concurrent=1)
    journal = (tmp_path / "part-00000.jsonl").read_bytes()
    whole = run(toys, tmp_path, plans, lines_of(toys))
    # as a crash leaves it between writing one and removing the other
    (tmp_path / "part-00000.jsonl").write_bytes(journal)
    assert run(toys, tmp_path, plans, []) == whole
    assert toys.last_actor.calls == [] and not (tmp_path / "part-00000.jsonl").exists()


def test_a_folder_of_another_collection_is_refused_and_left_alone(toys, tmp_path: Path):
    run(toys, tmp_path, plans_of(toys), lines_of(toys))
    before = (tmp_path / "part-00000.parquet").read_bytes()
    for other in (plans_of(toys, 7, seed=2), plans_of(toys, 3)):
        with pytest.raises(CorruptRecord, match="another collection"):
            run(toys, tmp_path, other, lines_of(toys))
    assert (tmp_path / "part-00000.parquet").read_bytes() == before
    (tmp_path / "part-00001.jsonl").write_text("")
    with pytest.raises(CorruptRecord, match="part-00001.jsonl belongs to another, larger collection"):
        run(toys, tmp_path, plans_of(toys), lines_of(toys))


def test_a_journal_line_that_is_no_trajectory_is_named(toys, tmp_path: Path):
    (tmp_path / "part-00000.jsonl").write_text('{"trajectory_id": "1-00000"}\n')
    with pytest.raises(CorruptRecord, match="part-00000.jsonl line 1"):
        run(toys, tmp_path, plans_of(toys), lines_of(toys))


def test_an_episode_lost_once_is_begun_again(toys, tmp_path: Path):
    toys.executor.faults = [ExecutorError("lost"), ExecutorError("lost again")]
    seen: list[dict] = []
    trajectories = run(
        toys,
        tmp_path,
        plans_of(toys),
        lines_of(toys),
        num_concurrent=1,
        progress=lambda done, total, figures: seen.append(dict(figures)),
    )
    assert len(trajectories) == 7
    assert (seen[-1]["num_retried"], seen[-1]["num_lost"]) == (1, 0)


def test_an_episode_lost_twice_is_left_out_and_many_stop_the_collection(toys, tmp_path: Path):
    toys.executor.faults = [ExecutorError("lost")] * 4
    plans = plans_of(toys)
    trajectories = run(toys, tmp_path / "one", plans, lines_of(toys), num_concurrent=1)
    assert [one.trajectory_id for one in trajectories] == [plan.trajectory_id for plan in plans[1:]]
    assert len(run(toys, tmp_path / "one", plans, lines_of(toys))) == 7  # the lost one is made up for
    with pytest.raises(InfrastructureError, match="2 of 7 episodes were lost"):
        run(toys, tmp_path / "all", plans, [ExpertError("no answer")], num_concurrent=1)
