"""One recorded trajectory told in several ways: other names, other words, the same events.

Scripts are the dear part of a trajectory and texts the cheap one. Only texts are made anew; the recorded steps stay.
"""

import random
import re
from collections.abc import Callable, Mapping

from rollout.types import Trajectory
from tasks.naming import data_names, draw_pairs, script_name
from tasks.state import State, Turn

SCRIPT_NAME = re.compile(r"(?<![\w./-])[\w-]+\.py(?![\w.-]*\w)")

# Words a recorded response anew from what its expert meant (`Step.wording`).
RewordResponse = Callable[[str, random.Random], str]


def reword(trajectory: Trajectory, rng: random.Random, reword_response: RewordResponse) -> State:
    """Return the whole history with every response worded anew; one without a recorded meaning stays as it is."""
    turns = (
        Turn(reword_response(step.wording, rng) if step.wording else step.response, step.feedback.text)
        for step in trajectory.steps
    )
    return State(trajectory.problem, tuple(turns))


def draw_renaming(trajectory: Trajectory, state: State, rng: random.Random) -> dict[str, str]:
    """Return new names for the project, the data files and every script that `state` mentions.

    Scripts that do not exist are renamed too, so that a new name never makes one of them exist.
    """
    texts = [state.problem, *(text for turn in state.turns for text in (turn.response, turn.feedback))]
    scripts = sorted({name for text in texts for name in SCRIPT_NAME.findall(text)})
    project, data, *pairs = draw_pairs(rng, len(scripts) + 2)
    names = trajectory.names
    # A project may go by an ordinary word, such as the forest of a random forest, so its name is only safe in place.
    mapping = {f"{noun} {names.project}": f"{noun} {project}" for noun in ("problem", "project")}
    mapping |= dict(zip((names.train_file, names.test_file), data_names(data), strict=True))
    return mapping | {script: script_name(pair) for script, pair in zip(scripts, pairs, strict=True)}


def rename(state: State, mapping: Mapping[str, str]) -> State:
    """Return `state` with each key of `mapping`, where it stands as a whole word, replaced by its value, all at once.

    At once means that a new name equal to another's old one is not replaced again.
    """
    longest_first = sorted(mapping, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?<!\w\.)(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])(?!\.\w)")

    def replaced(text: str) -> str:
        return pattern.sub(lambda match: mapping[match[0]], text)

    turns = (Turn(replaced(turn.response), replaced(turn.feedback)) for turn in state.turns)
    return State(replaced(state.problem), tuple(turns))


def variants(trajectory: Trajectory, num_variants: int, seed: int, reword_response: RewordResponse) -> list[State]:
    """Return `num_variants` tellings of a trajectory: as it was recorded, then renamed and reworded ones.

    One whose names nobody recorded, such as an imported conversation, has the first alone.
    """
    told = [trajectory.state()]
    for number in range(1, num_variants if trajectory.names.script else 1):
        rng = random.Random(f"{seed}/variant/{trajectory.trajectory_id}/{number}")
        state = reword(trajectory, rng, reword_response)
        told.append(rename(state, draw_renaming(trajectory, state, rng)))
    return told[:num_variants]
