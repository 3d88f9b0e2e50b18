"""A search acts from the states that its rule chooses, keeps its budget, and goes on from its journal."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rollout.errors import BudgetSpent, ExecutorError
from rollout.sampling.failures import ran_script
from rollout.search.rules import Chains, Rule, UpperConfidence, make_rule
from rollout.search.search import Agent, Budget, Search
from rollout.search.tree import SearchTree, instruction_of
from rollout.storage.journal import Journal
from rollout.types import Response
from tasks import action as grammar

PLENTY = 600.0


@dataclass
class RandomActor:
    """An actor that edits the best script so far; the score of an edit depends on the seed alone."""

    toys: object
    end_share: float = 0.0
    delay: float = 0.0
    calls: list[tuple[int, int]] = field(default_factory=list)  # depth and seed

    async def act(self, instance, state, seed):
        rng = random.Random(seed)
        self.calls.append((len(state.turns), seed))
        await asyncio.sleep(self.delay * rng.random())
        if rng.random() < self.end_share:
            return Response(self.toys.respond(grammar.FINAL_ANSWER, final_answer="done"))
        score = round(rng.random(), 4)
        return Response(self.toys.edit(instance.names.script, f"s{seed}.py", correct=int(10 * score), validation=score))


def make_search(toys, folder: Path, actor, rule: Rule, draw_ideas=lambda seed: ()) -> Search:
    return Search(new_tree(toys), toys.environment, Agent(actor, draw_ideas), rule, Journal(folder / "search.jsonl"))


def new_tree(toys) -> SearchTree:
    return SearchTree(toys.instance, toys.environment.problem(toys.instance), toys.environment.start(toys.instance))


def run(search: Search, actions: int, num_concurrent: int = 3, seconds: float = PLENTY, progress=lambda node: None):
    with search._journal:
        asyncio.run(search.run(Budget(actions, seconds), 7, num_concurrent, progress))
    return search


def shape(search: Search) -> list[tuple[int, int, str, float]]:
    """Each state by its parent, draw, response and score; the order of concurrent ones is left out."""
    number = {node.number: (node.parent.number if node.parent else -1) for node in search.tree.nodes}
    return sorted(
        (number[node.number], node.draw, node.step.response, node.snapshot.best_score) for node in search.tree.nodes[1:]
    )


@pytest.mark.parametrize("kind", ["chain", "best-of", "tree"])
def test_a_search_takes_exactly_the_actions_of_its_budget(toys, tmp_path, kind):
    actor = RandomActor(toys)
    search = run(make_search(toys, tmp_path, actor, make_rule(kind, 4, 5)), 20)
    assert (search.tree.num_actions, len(actor.calls), search.end) == (20, 20, "actions")
    assert len({seed for _, seed in actor.calls}) == 20


def test_a_chain_is_one_trajectory_and_best_of_are_several_side_by_side(toys, tmp_path):
    chain = run(make_search(toys, tmp_path / "a", RandomActor(toys), make_rule("chain", 4, 5)), 20)
    assert [node.depth for node in chain.tree.nodes] == list(range(21))
    several = run(make_search(toys, tmp_path / "b", RandomActor(toys), make_rule("best-of", 4, 5)), 20)
    assert Counter(node.depth for node in several.tree.nodes) == {0: 1, **dict.fromkeys(range(1, 6), 4)}


def test_a_trajectory_that_ended_is_followed_by_another(toys, tmp_path):
    search = run(make_search(toys, tmp_path, RandomActor(toys, end_share=0.4), Chains(1, 50)), 30, num_concurrent=1)
    ended = [node for node in search.tree.nodes if node.end == "final_answer"]
    assert len(search.tree.root.children) == len(ended) + (not search.tree.nodes[-1].end) > 3
    assert all(not node.children for node in ended)


def test_a_tree_goes_on_from_good_states_more_often_and_from_several(toys, tmp_path):
    search = run(make_search(toys, tmp_path, RandomActor(toys), UpperConfidence(max_steps=6)), 150)
    tree = search.tree
    below = {child.number: count(child) for child in tree.root.children}
    best = max(tree.root.children, key=lambda child: top(child))
    assert 3 <= len(below) <= 30
    assert below[best.number] > 2 * sorted(below.values())[len(below) // 2]
    assert max(node.depth for node in tree.nodes) <= 6


def count(node) -> int:
    return 1 + sum(map(count, node.children))


def top(node) -> float:
    return max([node.snapshot.best_score, *map(top, node.children)])


def test_a_lower_score_is_better_if_the_metric_is_an_error(toys, tmp_path):
    toys.instance = replace(toys.instance, task=replace(toys.instance.task, direction="minimize"))
    search = run(make_search(toys, tmp_path, RandomActor(toys), UpperConfidence(max_steps=6)), 100)
    children = search.tree.root.children
    best = min(children, key=lambda child: min(each.snapshot.best_score for each in subtree(child)))
    assert count(best) > 2 * sorted(map(count, children))[len(children) // 2]


def subtree(node) -> list:
    return [node, *(each for child in node.children for each in subtree(child))]


def test_an_interrupted_search_goes_on_to_the_same_states(toys, tmp_path):
    for kind in ("best-of", "tree"):
        whole = run(make_search(toys, tmp_path / kind / "whole", RandomActor(toys), make_rule(kind, 4, 5)), 20, 1)
        folder = tmp_path / kind / "parts"
        for actions in (3, 4, 11, 20):
            part = run(make_search(toys, folder, RandomActor(toys), make_rule(kind, 4, 5)), actions, 1)
            assert part.tree.num_actions == actions
        assert shape(part) == shape(whole)
        assert [node.seconds for node in part.tree.nodes] == sorted(node.seconds for node in part.tree.nodes)


def test_a_draw_that_was_interrupted_is_made_again_and_no_other_twice(toys, tmp_path):
    first = make_search(toys, tmp_path, RandomActor(toys, delay=0.05), Chains(6, 3))
    run(first, 18, 6, seconds=0.04)
    assert first.end == "time" and first.tree.num_actions < 18
    assert not any(node.running for node in first.tree.nodes)
    again = run(make_search(toys, tmp_path, RandomActor(toys), Chains(6, 3)), 18, 6)
    assert sorted(child.draw for child in again.tree.root.children) == list(range(6))


def test_a_journal_of_other_data_is_refused(toys, tmp_path):
    run(make_search(toys, tmp_path, RandomActor(toys), Chains(1, 5)), 3)
    (toys.instance.task.public / "train.csv").write_text("other")
    fresh = type(toys.environment)(
        toys.store, toys.executor, toys.environment.tools.coder, toys.environment.tools.observation, False
    )
    toys.environment = fresh
    with Journal(tmp_path / "search.jsonl") as journal, pytest.raises(ValueError, match="another search"):
        Search(new_tree(toys), toys.environment, Agent(RandomActor(toys)), Chains(1, 5), journal)


def test_every_history_from_the_root_has_ideas_of_its_own(toys, tmp_path):
    search = make_search(toys, tmp_path, RandomActor(toys), Chains(3, 2), lambda seed: (f"idea {seed}",))
    run(search, 6)
    problems = {node.state.problem for node in search.tree.nodes[1:]}
    assert len(problems) == 3 and all("(1) idea " in problem for problem in problems)
    replayed = run(make_search(toys, tmp_path, RandomActor(toys), Chains(3, 2)), 6)
    assert [node.state for node in replayed.tree.nodes] == [node.state for node in search.tree.nodes]


def test_a_lost_action_is_tried_again_and_a_broken_sandbox_ends_the_search(toys, tmp_path):
    toys.executor.faults = [ExecutorError("gone")] * 2  # the environment retries once
    search = run(make_search(toys, tmp_path / "a", RandomActor(toys), Chains(1, 5)), 5, 1)
    assert search.tree.num_actions == 5
    toys.executor.faults = [ExecutorError("gone")] * 6
    with pytest.raises(ExecutorError, match="gone"):
        run(make_search(toys, tmp_path / "b", RandomActor(toys), Chains(1, 5)), 5, 1)


def test_a_spent_budget_and_a_full_context_end_the_search_with_what_there_is(toys, tmp_path):
    lines = [toys.edit("SCRIPT", "a.py", correct=9, validation=0.9), BudgetSpent("2 dollars are spent")]
    spent = run(make_search(toys, tmp_path / "a", toys.actor(lines), Chains(1, 5)), 5, 1)
    assert (spent.end, spent.tree.num_actions) == ("dollars", 1)
    full = run(make_search(toys, tmp_path / "b", toys.actor([lines[0], None]), Chains(1, 5)), 2, 1)
    assert full.tree.nodes[1].end == "context_limit"
    assert full.tree.num_actions == 2, "another trajectory begins"


def test_progress_is_told_of_each_state_once_it_is_journaled(toys, tmp_path):
    told = []
    search = make_search(toys, tmp_path, RandomActor(toys), Chains(2, 3))
    run(search, 6, progress=lambda node: told.append((node.number, len(search._journal.records))))
    assert [number for number, _ in told] == list(range(1, 7))
    assert all(records >= number for number, records in told)


def test_the_lineage_of_a_script_has_its_edits_alone(toys, tmp_path):
    lines = [
        toys.edit("SCRIPT", "a.py", correct=6, validation=0.6),
        toys.edit("SCRIPT", "b.py", correct=5, validation=0.55),
        toys.respond(grammar.COPY_FILE, source="a.py", destination="c.py"),
        "no action",
        toys.edit("./c.py", "d.py", correct=7, validation=0.7),
        toys.respond(grammar.EXECUTE, script_name="d.py"),
    ]
    search = run(make_search(toys, tmp_path, toys.actor(lines), Chains(1, 6)), 6, 1)
    last = search.tree.nodes[-1]
    assert last.script == "d.py"
    assert [node.number for node in last.lineage()] == [1, 5]
    assert [instruction_of(node.step) for node in search.tree.nodes[3:5]] == [
        "Copy File",
        "a response that is no action",
    ]


def test_an_edit_that_saves_the_same_failing_script_again_ran_and_a_refused_one_did_not(toys, tmp_path):
    crash = toys.edit("SCRIPT", "a.py", exit="crashed")
    lines = [
        crash,
        crash,
        toys.edit("SCRIPT", toys.instance.names.train_file, correct=6),
        toys.respond(grammar.EDIT, script_name="SCRIPT", edit_instruction="Sing.", save_name="b.py"),
        toys.respond(grammar.LIST_FILES, dir_path="."),
        toys.respond(grammar.EXECUTE, script_name="a.py"),
    ]
    search = run(make_search(toys, tmp_path, toys.actor(lines), Chains(1, 6)), 6, 1)
    assert [ran_script(node.step) for node in search.tree.nodes[1:]] == [True, True, False, False, False, True]
