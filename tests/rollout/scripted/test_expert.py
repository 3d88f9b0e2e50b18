import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from rollout.scripted.expert import (
    FAVORITES,
    ScriptedExpert,
    edit_meaning,
    read_state,
    recipes_for,
)
from rollout.scripted.recipes import RECIPES, recognize
from rollout.scripted.wording import from_json, reword_response
from rollout.types import Response
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import status_line
from tasks.naming import draw_names, is_held_out
from tasks.prompt import parse_ideas, problem_text
from tasks.response import FIELDS, STATUS, format_response, parse_response
from tasks.state import State
from tasks.task import Instance, Task

EXPERT = ScriptedExpert(6)
KINDS = (
    "tabular-regression",
    "tabular-classification",
    "image-classification",
    "image-denoising",
    "text-classification",
    "text-ordinal",
)
LOOK = {"file_name": "train.csv", "things_to_look_for": "the columns"}
FAILURES = (
    "Error: {new} crashed.\nTypeError: no",
    "Stopped: {new} ran longer than 20 s.",
    "Error: {new} left no file.",
)


def instance(kind: str = KINDS[0], split: str = "held_in", seed: int = 0) -> Instance:
    task = Task(
        name="toy",
        kind=kind,
        split=split,  # type: ignore[arg-type]
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
    return Instance(task, draw_names(random.Random(seed), held_out=split == "held_out"))


def act(actor: ScriptedExpert, where: Instance, state: State, seed: int) -> Response:
    response = asyncio.run(actor.act(where, state, seed))
    assert response is not None
    return response


def parsed(response: Response) -> Action:
    action = parse_response(response.text).action
    assert isinstance(action, Action), response.text
    return action


def play(
    where: Instance, ideas: list[str], seed: int, expert: ScriptedExpert = EXPERT
) -> tuple[State, list[tuple[Response, Action, str]], set[str]]:
    """Returns an episode against feedback made up here, as (response, action, best script before) a step."""
    rng = random.Random(seed)
    state = State(problem_text(where, ideas))
    files = {where.names.script, where.names.train_file, where.names.test_file}
    best, score = where.names.script, 5.0
    steps = []
    for _ in range(expert.max_steps):
        response = act(expert, where, state, rng.getrandbits(31))
        action = parsed(response)
        steps.append((response, action, best))
        arguments = action.arguments
        named = arguments.get("script_name") or arguments.get("file_name") or arguments.get("source")
        assert named is None or named in files
        text = "The final answer is in."
        if action.name == grammar.EDIT:
            new = arguments["save_name"]
            assert new not in files
            draw = rng.random()
            if draw < 0.1:
                text = "Error: the edit could not be made: no."
            else:
                files.add(new)
                text = f"Edited {named}, saved as {new}:\n-a\n+b\n"
                if draw < 0.3:
                    text += rng.choice(FAILURES).format(new=new)
                else:
                    got = score + rng.choice((-0.5, 0.5))
                    text += f"validation mae: {got:.4f}"
                    if got < score:
                        best, score = new, got
        elif action.name == grammar.EXECUTE:
            text = f"Ran {named}:\nvalidation mae: {score:.4f}"
        elif action.name == grammar.COPY_FILE:
            files.add(arguments["destination"])
            text = f"Copied {named} to {arguments['destination']}."
        state = state.then(response.text, f"{text}\n{status_line(best, score)}")
        if action.name == grammar.FINAL_ANSWER:
            break
    return state, steps, files


def episodes(count: int) -> list[tuple[Instance, list[str], State, list[tuple[Response, Action, str]]]]:
    found = []
    for seed in range(count):
        rng = random.Random(f"{seed}/ideas")
        where = instance(rng.choice(KINDS), seed=seed)
        fitting = [r for r in recipes_for(where.task.kind) if r.effect not in ("slow", "crash")]
        ideas = [rng.choice(r.phrasings) for r in rng.sample(fitting, rng.randint(1, 3))]
        state, steps, _ = play(where, ideas, seed)
        found.append((where, ideas, state, steps))
    return found


EPISODES = episodes(300)


def test_every_status_field_copies_the_last_status_line() -> None:
    for _, _, state, _ in EPISODES:
        texts = [state.problem, *(turn.feedback for turn in state.turns)]
        for turn, before in zip(state.turns, texts, strict=False):
            fields = parse_response(turn.response).fields
            assert isinstance(fields, dict)
            assert fields[STATUS] == before.splitlines()[-1] + "."


def test_episodes_end_with_a_final_answer_within_the_limit() -> None:
    assert all(steps[-1][1].name == grammar.FINAL_ANSWER for *_, steps in EPISODES)
    lengths = Counter(len(steps) for *_, steps in EPISODES)
    assert max(lengths) == 6
    assert len(lengths) > 2


def test_ideas_come_first_and_all_are_tried() -> None:
    tried_first = 0
    for _, ideas, _, steps in EPISODES:
        edits = [recognize(a.arguments["edit_instruction"]) for _, a, _ in steps if a.name == grammar.EDIT]
        wanted = {name for idea in ideas for name in recognize(idea)}
        tried_first += edits[0][0] == recognize(ideas[0])[0]
        assert wanted & {name for names in edits for name in names}
    assert tried_first > 0.85 * len(EPISODES)


def test_edits_start_mostly_from_the_best_script() -> None:
    from_best = [a.arguments["script_name"] == best for *_, s in EPISODES for _, a, best in s if a.name == grammar.EDIT]
    assert 0.8 < sum(from_best) / len(from_best) < 1.0


def test_the_mix_of_edits_has_mistakes_in_their_small_shares() -> None:
    edits = [
        (where.task.kind, name)
        for where, _, _, steps in EPISODES
        for _, action, _ in steps
        if action.name == grammar.EDIT
        for name in recognize(action.arguments["edit_instruction"])
    ]
    effects = Counter(RECIPES[name].effect for _, name in edits)
    assert 0 < effects["slow"] <= 0.03 * len(edits)
    assert 0.008 * len(edits) <= effects["crash"] <= 0.04 * len(edits)
    wrong_kind = sum(kind not in RECIPES[name].kinds for kind, name in edits)
    assert 0.005 * len(edits) <= wrong_kind <= 0.07 * len(edits)
    asked = {name for _, name in edits}
    assert asked >= {name for name, recipe in RECIPES.items() if recipe.effect in ("good", "harmless", "harmful")}
    assert {RECIPES[name].effect for name in asked} == {"good", "harmless", "harmful", "slow", "crash"}
    actions = Counter(action.name for *_, steps in EPISODES for _, action, _ in steps)
    assert set(actions) == {
        grammar.LIST_FILES,
        grammar.COPY_FILE,
        grammar.INSPECT,
        grammar.EXECUTE,
        grammar.UNDERSTAND,
        grammar.EDIT,
        grammar.FINAL_ANSWER,
    }
    looked = sum(steps[0][1].name != grammar.EDIT for *_, steps in EPISODES)
    assert 0.3 < looked / len(EPISODES) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_that_does_not_explore_tries_its_favourites_again_and_again(kind: str) -> None:
    tried: Counter[str] = Counter()
    for seed in range(60):
        _, steps, _ = play(instance(kind, seed=seed), [], seed, ScriptedExpert(12, explores=False))
        edits = [
            recognize(action.arguments["edit_instruction"]) for _, action, _ in steps if action.name == grammar.EDIT
        ]
        tried.update(name for names in edits for name in names)
    favourites = {name for name in FAVORITES if kind in RECIPES[name].kinds}
    assert len(favourites) == 4 and favourites <= set(tried)
    assert 0.9 < sum(tried[name] for name in favourites) / tried.total() < 1.0  # the rest are slips
    assert tried.total() > len(favourites) * 60


def test_a_response_says_what_the_feedback_said() -> None:
    seen = set()
    for _, _, state, steps in EPISODES:
        for turn, (response, _, _) in zip(state.turns, steps[1:], strict=False):
            meaning = from_json(response.wording)
            seen.add(meaning.situation)
            if "Stopped:" in turn.feedback:
                assert meaning.situation == "stopped"
            elif " crashed." in turn.feedback:
                assert meaning.situation == "crashed"
            elif "could not be made" in turn.feedback:
                assert meaning.situation == "refused"
            elif "saved as" in turn.feedback and "validation" in turn.feedback:
                better = meaning.best == meaning.last
                assert meaning.situation == ("better" if better else "worse")
                assert f"validation mae: {meaning.last_score}" in turn.feedback
                assert f"{meaning.last} " in response.text
    assert seen >= {"better", "worse", "crashed", "stopped", "refused", "copied", "looked"}


def test_the_same_state_and_seed_give_the_same_response() -> None:
    where, _, state, steps = EPISODES[0]
    for turns in range(len(steps)):
        prefix = State(state.problem, state.turns[:turns])
        assert act(ScriptedExpert(6), where, prefix, 5) == act(ScriptedExpert(6), where, prefix, 5)


def test_the_expert_knows_files_and_scores_from_the_texts_alone() -> None:
    told, other = instance(seed=1), instance(seed=2)
    state = State(problem_text(told, ["Use a random forest."]))
    texts = " ".join(act(ScriptedExpert(6), other, state, seed).text for seed in range(40))
    assert told.names.script in texts
    assert other.names.script not in texts.replace(f'"save_name": "{other.names.script}"', "")
    with pytest.raises(ValueError, match="no line 'Best so far"):
        read_state(State("A problem without a status line."))


def test_new_scripts_have_names_of_their_split() -> None:
    for split in ("held_in", "held_out"):
        where = instance(split=split)
        memory = read_state(State(problem_text(where)))
        meaning = edit_meaning(where, memory, memory.best, ["standardize"], random.Random(3))
        pair = meaning.arguments["save_name"].removeprefix("run_").removesuffix(".py")
        assert is_held_out(pair) == (split == "held_out")


def test_rewording_keeps_action_arguments_and_recipes() -> None:
    rng = random.Random(0)
    changed = total = 0
    for *_, steps in EPISODES[:100]:
        for response, action, _ in steps:
            again = parse_response(reword_response(response.wording, rng)).action
            assert isinstance(again, Action)
            assert again.name == action.name
            old, new = dict(action.arguments), dict(again.arguments)
            if action.name == grammar.EDIT:
                assert recognize(old.pop("edit_instruction")) == recognize(new.pop("edit_instruction"))
            assert old == new
            total += 1
            changed += reword_response(response.wording, rng) != response.text
    assert changed > 0.9 * total
    with pytest.raises(ValueError, match="not the meaning"):
        reword_response('{"situation": "start"}', rng)


def test_the_language_is_lean() -> None:
    words = [len(response.text.split()) for *_, steps in EPISODES for response, _, _ in steps]
    assert sum(words) / len(words) < 40
    assert max(words) < 60


def test_ideas_are_read_back_from_the_problem() -> None:
    ideas = ["Use (a) random forest.", "Tune it; by 2.5 times.", "Standardize."]
    assert parse_ideas(problem_text(instance(), ideas)) == ideas
    assert parse_ideas(problem_text(instance())) == []
    many = [f"Use {count} trees." for count in range(12)]
    assert parse_ideas(problem_text(instance(), many)) == many


def test_the_description_of_a_table_says_which_recipes_are_likely() -> None:
    def share(feedback: str, names: tuple[str, ...]) -> float:
        where, counts = instance("tabular-classification"), Counter()
        looked = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(grammar.UNDERSTAND, LOOK))
        state = State(problem_text(where)).then(looked, f"{feedback}\n{status_line(where.names.script, 5.0)}")
        for seed in range(400):
            action = parsed(act(EXPERT, where, state, seed))
            counts.update(recognize(action.arguments.get("edit_instruction", "")))
        return sum(counts[name] for name in names) / counts.total()

    size = "train.csv: 900 rows, 9 number columns, "
    words, gaps = ("one_hot", "target_encoding"), ("median_impute", "missing_flags")
    assert share(f"{size}5 word columns, the target has 2 classes", words) > 2 * share("Nothing was said.", words)
    assert share(f"{size}0 word columns, the target has 2 classes", words) < 0.5 * share("Nothing was said.", words)
    assert share(f"{size}0 word columns, some values missing, the target has 2 classes", gaps) > 2 * share(
        f"{size}0 word columns, the target has 2 classes", gaps
    )


def test_only_what_was_tried_is_taken_back() -> None:
    asked: list[tuple[str, set[str]]] = []
    for _, ideas, _, steps in EPISODES:
        told = {name for idea in ideas for name in recognize(idea)}
        tried: set[str] = set()
        for _, action, _ in steps:
            names = recognize(action.arguments.get("edit_instruction", ""))
            asked += [(name, set(tried)) for name in names if RECIPES[name].undoes and name not in told]
            tried.update(names)
    fitting = [not tried.isdisjoint(RECIPES[name].undoes) for name, tried in asked]
    assert len(fitting) >= 3 and sum(fitting) / len(fitting) > 0.7  # the rest are slips
