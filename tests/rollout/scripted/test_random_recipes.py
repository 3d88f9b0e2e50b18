import asyncio
import random
from collections import Counter
from pathlib import Path

from rollout.scripted.expert import recipes_for
from rollout.scripted.random_recipes import RandomRecipeActor
from rollout.scripted.recipes import recognize
from tasks import action as grammar
from tasks.action import Action
from tasks.naming import draw_names
from tasks.prompt import problem_text
from tasks.response import parse_response
from tasks.state import State
from tasks.task import Instance, Task

TASK = Task(
    name="toy",
    kind="text-classification",
    split="held_in",
    metric="mae",
    direction="minimize",
    m_init=5.0,
    validation_init=5.0,
    m_best=1.0,
    m_best_source="",
    problem="Predict {test_file} from {train_file}, start from {script}.",
    script="",
    public=Path("."),
    private=Path("."),
)


def test_the_random_actor_draws_every_recipe_of_the_kind_equally_and_edits_the_best() -> None:
    where = Instance(TASK, draw_names(random.Random(0), held_out=False))
    state = State(problem_text(where)).then("anything", "Edited.\nBest so far: opal.py 3.0000")
    counts: Counter[str] = Counter()
    num = 3000
    for seed in range(num):
        response = asyncio.run(RandomRecipeActor().act(where, state, seed))
        assert response is not None
        action = parse_response(response.text).action
        assert isinstance(action, Action)
        assert action.name == grammar.EDIT
        assert action.arguments["script_name"] == "opal.py"
        counts.update(recognize(action.arguments["edit_instruction"]))
    fitting = {recipe.name for recipe in recipes_for("text-classification")}
    assert set(counts) == fitting
    expected = num / len(fitting)
    assert all(0.5 * expected < count < 1.6 * expected for count in counts.values())
