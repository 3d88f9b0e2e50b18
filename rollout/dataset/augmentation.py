"""Render one recorded trajectory in several wordings: other names, other sentences, the same events.

Running scripts is expensive and text is cheap, so only the texts change; the recorded steps stay as they are.
"""

import random
import re
from collections.abc import Callable, Mapping

from rollout.types import Trajectory
from tasks.naming import data_names, draw_pairs, script_name
from tasks.state import State, Turn

SCRIPT_NAME = re.compile(r"(?<![\w./-])[\w-]+\.py(?![\w.-]*\w)")

# Returns another response with the meaning that the scripted expert recorded in `Step.wording`.
RewordResponse = Callable[[str, random.Random], str]


def reword_trajectory(trajectory: Trajectory, rng: random.Random, reword_response: RewordResponse | None) -> State:
    """Return the whole history with each response reworded; one without a recorded meaning stays as it is."""
    turns = (
        Turn(
            reword_response(step.wording, rng) if step.wording and reword_response else step.response,
            step.feedback.text,
        )
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
    # A project's name may be an ordinary word, such as the forest of a random forest; it is replaced only after a noun.
    mapping = {f"{noun} {names.project}": f"{noun} {project}" for noun in ("problem", "project")}
    mapping |= dict(zip((names.train_file, names.test_file), data_names(data), strict=True))
    return mapping | {script: script_name(pair) for script, pair in zip(scripts, pairs, strict=True)}


def rename(state: State, mapping: Mapping[str, str]) -> State:
    """Return `state` with each whole word that is a key of `mapping` replaced by its value.

    All replacements happen at once, so a new name that equals another old name is not replaced again.
    """
    longest_first = sorted(mapping, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?<!\w\.)(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])(?!\.\w)")

    def replaced(text: str) -> str:
        return pattern.sub(lambda match: mapping[match[0]], text)

    turns = (Turn(replaced(turn.response), replaced(turn.feedback)) for turn in state.turns)
    return State(replaced(state.problem), tuple(turns))


def wordings(
    trajectory: Trajectory, num_wordings: int, seed: int, reword_response: RewordResponse | None = None
) -> list[State]:
    """Return a trajectory in `num_wordings` wordings: as it was recorded, then renamed and reworded.

    A trajectory without recorded names, such as an imported conversation, has only its first wording.

    Args:
        trajectory: The recorded trajectory.
        num_wordings: The number of wordings.
        seed: The seed of names and sentences.
        reword_response: A function that rewords a response from its recorded meaning; if None, texts are only renamed.
    """
    states = [trajectory.state()]
    for number in range(1, num_wordings if trajectory.names.script else 1):
        rng = random.Random(f"{seed}/variant/{trajectory.trajectory_id}/{number}")
        state = reword_trajectory(trajectory, rng, reword_response)
        states.append(rename(state, draw_renaming(trajectory, state, rng)))
    return states[:num_wordings]
