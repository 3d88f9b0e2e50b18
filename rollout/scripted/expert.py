"""The scripted expert, from whose episodes a policy learns."""

import random
import re
from dataclasses import dataclass, field

from rollout.scripted.recipes import MAX_RECIPES, RECIPES, Recipe, recognize
from rollout.scripted.wording import Meaning, to_json, word
from rollout.types import Response
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import parse_status_line, score_text, validation_score
from tasks.naming import draw_script_name
from tasks.prompt import parse_ideas
from tasks.response import parse_response
from tasks.state import State
from tasks.task import Instance

WORD_COLUMNS = re.compile(r"\d+ number columns, (\d+) word columns")
DATA_FILE = re.compile(r"[\w.-]+\.csv")

# Habits of the scripted expert, as probabilities of one decision.
LOOK_FIRST, LOOK_AGAIN = 0.38, 0.15
COPY = 0.05
COMBINE_IDEAS = 0.2  # in the first edit, if there are two ideas
STOP_EARLY = 0.12  # after an edit, once all ideas are tried
RUN_BEST = 0.7  # before the end, if the last submission is not of the best script
FROM_LATEST, FROM_FIRST = 0.08, 0.07  # else from the best
SLIP_SLOW, SLIP_CRASH, SLIP_KIND, SLIP_FAMILY = 0.005, 0.015, 0.015, 0.02
# If no ideas are left: the weight of a recipe by its expected effect, and the factor for a recipe that tunes the
# present family of model.
EFFECT_WEIGHTS = {"good": 3.0, "harmless": 1.0, "harmful": 0.5}
TUNE_WEIGHT = 3.0
# Property in the description of a table -> recipes for it, more likely if the table has it and less likely if not.
SUITS = {"words": ("one_hot", "target_encoding"), "gaps": ("median_impute", "missing_flags")}
SUIT_WEIGHT = 4.0
# Recipes of an expert that does not explore: the first steps of every tutorial. Assumed rather than measured.
FAVORITES = ("standardize", "tfidf", "random_forest", "gradient_boosting", "more_trees")


@dataclass
class Memory:
    """The facts that the expert reads from the texts of a state, which any agent can read."""

    first: str
    best: str
    best_score: str
    data_files: list[str]
    ideas: list[list[str]]  # the recipes of each idea
    situation: str = "start"
    last: str = ""  # the last script that ran, and its printed score
    last_score: str = ""
    submitted: str = ""  # the script that left the last submission
    edited: bool = False
    tried: set[str] = field(default_factory=set)
    families: dict[str, str] = field(default_factory=dict)  # script -> family of its model
    table: dict[str, bool] = field(default_factory=dict)  # key of `SUITS` -> whether a description says so


def read_state(state: State) -> Memory:
    """Return the facts in the texts of a state. Raises ValueError if the problem has no status line."""
    status = _last_status(state.problem)
    if status is None:
        raise ValueError("the problem text has no line 'Best so far: NAME SCORE'; build it with tasks.prompt")
    name, score = status
    ideas = [recognize(idea) for idea in parse_ideas(state.problem)]
    memory = Memory(
        first=name,
        best=name,
        best_score=score,
        data_files=list(dict.fromkeys(DATA_FILE.findall(state.problem))),
        ideas=[recipes for recipes in ideas if recipes],
        families={name: ""},
    )
    for turn in state.turns:
        best_before = memory.best
        if status := _last_status(turn.feedback):
            memory.best, memory.best_score = status
        action = parse_response(turn.response).action
        if isinstance(action, Action):
            _remember(memory, action, turn.feedback, best_before)
    return memory


def _last_status(text: str) -> tuple[str, str] | None:
    """Return script and score of the status line that ends a problem or a feedback, None if there is none."""
    return parse_status_line(text.rpartition("\n")[2])


def _remember(memory: Memory, action: Action, feedback: str, best_before: str) -> None:
    if action.name == grammar.COPY_FILE:
        memory.situation = "copied"
        memory.families[action.arguments["destination"]] = memory.families.get(action.arguments["source"], "")
    elif action.spec.runs_script:
        edit = action.spec.is_edit
        script = action.arguments["save_name" if edit else "script_name"]
        memory.situation = _situation(feedback, edit, memory.best == script and (best_before != script or edit))
        if memory.situation != "refused":
            memory.last = script
            score = validation_score(feedback)
            memory.last_score = "" if score is None else score_text(score)
            if score is None and memory.situation == "better":
                memory.last_score = memory.best_score
        if memory.situation in ("better", "worse", "looked"):
            memory.submitted = script
        if edit:
            recipes = recognize(action.arguments["edit_instruction"])
            memory.edited = True
            memory.tried.update(recipes)
            gives = [RECIPES[name].gives for name in recipes if RECIPES[name].gives]
            source = action.arguments["script_name"]
            memory.families[script] = gives[-1] if gives else memory.families.get(source, "")
    else:
        memory.situation = "looked"
        if described := WORD_COLUMNS.search(feedback):
            memory.table = {"words": int(described[1]) > 0, "gaps": "values missing" in feedback}


def _situation(feedback: str, edit: bool, improved: bool) -> str:
    if "Stopped: " in feedback:
        return "stopped"
    if edit and feedback.startswith("Error: "):  # nothing was saved or run
        return "refused"
    if "Error: " in feedback or (validation_score(feedback) is None and not improved):
        return "crashed"
    if not edit:
        return "looked"
    return "better" if improved else "worse"


@dataclass(frozen=True)
class ScriptedExpert:
    """A scripted expert with varied wording, which tries ideas one by one and keeps or reverts edits by their scores.

    It sometimes inspects files first, edits mostly the best script, and uses its own ideas for the kind of task after
    the given ones. It makes the mistakes that agents make: edits that crash, run too long, or make no sense.

    Attributes:
        max_steps: The maximum number of actions of an episode; the last one is the final answer.
        explores: Whether its own ideas are all recipes that fit. Otherwise they are a few favorites, repeated after all
            are tried, like those of an expert without idea prompts.
    """

    max_steps: int = 6
    explores: bool = True

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return the next response; the same state and seed give the same response."""
        rng = random.Random(f"{seed}/expert")
        memory = read_state(state)
        meaning = self._decide(instance, memory, len(state.turns), rng)
        return Response(word(meaning, rng), to_json(meaning))

    def _decide(self, instance: Instance, memory: Memory, turn: int, rng: random.Random) -> Meaning:
        left = self.max_steps - turn
        ideas = [idea for idea in memory.ideas if not memory.tried.issuperset(idea)]
        unsaved = bool(memory.submitted) and memory.submitted != memory.best
        if left <= 1:
            return _final(memory)
        if unsaved and left == 2 and rng.random() < RUN_BEST:
            return _run(memory)
        if not memory.edited and rng.random() < (LOOK_FIRST if turn == 0 else LOOK_AGAIN):
            return _look(memory, rng)
        if memory.edited and not ideas and rng.random() < STOP_EARLY:
            return _run(memory) if unsaved and rng.random() < RUN_BEST else _final(memory)
        if memory.situation in ("better", "worse") and rng.random() < COPY:
            return _copy(instance, memory, rng)
        script = _base(memory, rng)
        recipes = slip(instance.task.kind, rng)
        if recipes is None and ideas:
            combine = len(ideas) > 1 and not memory.edited and rng.random() < COMBINE_IDEAS
            recipes = list(dict.fromkeys(ideas[0] + ideas[1]))[:MAX_RECIPES] if combine else ideas[0]
        if recipes is None:
            recipes = [_own_idea(instance.task.kind, memory, script, rng, self.explores)]
        return edit_meaning(instance, memory, script, recipes, rng)


def slip(kind: str, rng: random.Random) -> list[str] | None:
    """Return a recipe that a careless agent would try, or None, which is most likely."""
    draw = rng.random()
    for share, fits in (
        (SLIP_SLOW, lambda r: r.effect == "slow"),
        (SLIP_CRASH, lambda r: r.effect == "crash"),
        (SLIP_KIND, lambda r: kind not in r.kinds),
    ):
        if draw < share:
            return [rng.choice([r.name for r in RECIPES.values() if fits(r)])]
        draw -= share
    return None


def recipes_for(kind: str) -> list[Recipe]:
    """Return the recipes for a kind of task."""
    return [recipe for recipe in RECIPES.values() if kind in recipe.kinds]


def _own_idea(kind: str, memory: Memory, script: str, rng: random.Random, explores: bool) -> str:
    family = memory.families.get(script, "")
    careless = rng.random() < SLIP_FAMILY
    sane = [recipe for recipe in recipes_for(kind) if recipe.effect in EFFECT_WEIGHTS]
    known = [recipe for recipe in sane if explores or recipe.name in FAVORITES]
    free = [
        recipe
        for recipe in known
        if recipe.name not in memory.tried
        and (careless or not recipe.needs or family in recipe.needs)
        and (careless or not recipe.gives or recipe.gives != family)
        and (careless or not recipe.undoes or not memory.tried.isdisjoint(recipe.undoes))
    ] or [recipe for recipe in known if not recipe.needs and not recipe.undoes]
    weights = [
        EFFECT_WEIGHTS[recipe.effect]
        * (TUNE_WEIGHT if family and family in recipe.needs else 1.0)
        * _suits(memory, recipe)
        for recipe in free
    ]
    return rng.choices([recipe.name for recipe in free], weights)[0]


def _suits(memory: Memory, recipe: Recipe) -> float:
    """Return the factor of a recipe's weight by the description of the table, 1 if there is none."""
    said = [memory.table[key] for key, names in SUITS.items() if recipe.name in names and key in memory.table]
    return 1.0 if not said else SUIT_WEIGHT if all(said) else 1 / SUIT_WEIGHT


def _base(memory: Memory, rng: random.Random) -> str:
    draw = rng.random()
    if draw < FROM_LATEST and memory.submitted:
        return memory.submitted
    return memory.first if draw > 1.0 - FROM_FIRST else memory.best


def _meaning(memory: Memory, intent: str, target: str, action: str, **arguments: str) -> Meaning:
    return Meaning(
        situation=memory.situation,
        intent=intent,
        best=memory.best,
        best_score=memory.best_score,
        last=memory.last,
        last_score=memory.last_score,
        target=target,
        action=action,
        arguments=arguments,
    )


def edit_meaning(instance: Instance, memory: Memory, script: str, recipes: list[str], rng: random.Random) -> Meaning:
    """Return an edit of `script` by `recipes`, saved under an unused name."""
    saved = _new_script(instance, memory, rng)
    intent = "return" if memory.situation in ("worse", "crashed", "stopped") and script != memory.last else "edit"
    meaning = _meaning(memory, intent, script, grammar.EDIT, script_name=script, save_name=saved)
    meaning.recipes.extend(recipes)
    return meaning


def _new_script(instance: Instance, memory: Memory, rng: random.Random) -> str:
    names = instance.names
    taken = (names.project, names.train_file, *sorted(memory.families))
    return draw_script_name(rng, taken, held_out=instance.task.split == "held_out")


def _look(memory: Memory, rng: random.Random) -> Meaning:
    kind = rng.choice(("list", "inspect", "inspect", "script", "data", "data", "run"))
    if kind == "list":
        return _meaning(memory, "list", "", grammar.LIST_FILES, dir_path=".")
    if kind == "inspect":
        lines = {"start_line_number": "1", "end_line_number": "12"}
        return _meaning(memory, "inspect", memory.first, grammar.INSPECT, script_name=memory.first, **lines)
    if kind == "run":
        return _meaning(memory, "run", memory.first, grammar.EXECUTE, script_name=memory.first)
    if kind == "data" and memory.data_files:
        name, wanted = rng.choice(memory.data_files), "the columns"
    else:
        name, wanted = memory.first, "the model"
    return _meaning(memory, "understand", name, grammar.UNDERSTAND, file_name=name, things_to_look_for=wanted)


def _run(memory: Memory) -> Meaning:
    return _meaning(memory, "run", memory.best, grammar.EXECUTE, script_name=memory.best)


def _copy(instance: Instance, memory: Memory, rng: random.Random) -> Meaning:
    copy = _new_script(instance, memory, rng)
    return _meaning(memory, "copy", memory.best, grammar.COPY_FILE, source=memory.best, destination=copy)


def _final(memory: Memory) -> Meaning:
    answer = f"{memory.best} is the best."
    return _meaning(memory, "final", memory.best, grammar.FINAL_ANSWER, final_answer=answer)
