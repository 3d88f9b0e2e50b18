"""A baseline that edits by random recipes."""

import random

from rollout.scripted.expert import edit_meaning, read_state, recipes_for
from rollout.scripted.wording import to_json, word
from rollout.types import Response
from tasks.state import State
from tasks.task import Instance


class RandomRecipeActor:
    """An actor that edits the best script by one uniformly random recipe for the kind of task in every step."""

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return an edit; the same state and seed give the same edit."""
        rng = random.Random(f"{seed}/random_recipe")
        memory = read_state(state)
        recipe = rng.choice(recipes_for(instance.task.kind))
        meaning = edit_meaning(instance, memory, memory.best, [recipe.name], rng)
        return Response(word(meaning, rng), to_json(meaning))
