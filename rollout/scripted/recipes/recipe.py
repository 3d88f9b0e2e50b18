"""The type of a recipe: an edit of a script, the instructions that ask for it, and the tasks that it is meant for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rollout.scripted.recipes.script import Script

Axis = Literal["Data", "Model", "Learning"]
Effect = Literal["good", "harmless", "harmful", "slow", "crash"]

TEXT = ("text-classification", "text-regression", "text-ordinal")
TABULAR = ("tabular-classification", "tabular-regression")
NUMERIC = (*TABULAR, "image-classification", "image-denoising")
REGRESSION = ("tabular-regression", "text-regression")  # without ratings and pixels, whose logarithm is of no use
IMAGES = ("image-classification", "image-denoising")
NUMBERS = (*REGRESSION, "image-denoising", "text-ordinal")  # tasks whose scripts predict a number
CLASSIFICATION = ("tabular-classification", "image-classification", "text-classification")
ALL = (*NUMERIC, *TEXT)
REMOVING = (
    "no|without|skip(?:ping)?|undo(?:ing)?|remov(?:e|ing)|delet(?:e|ing)|drop(?:ping)?|leav(?:e|ing) out|"
    "ignor(?:e|ing)|exclud(?:e|ing)|get(?:ting)? rid of"
)
# Prefix of the keywords of recipes that remove something; without it, the verb would count as a negation.
TAKE_AWAY = f"((?:{REMOVING})( the| all| any| of| very)* )?"


@dataclass(frozen=True)
class Recipe:
    """One edit of a training script.

    Attributes:
        name: Its name in records.
        axis: The axis of its ideas.
        effect: The effect that an ML engineer would expect; the real effect depends on the task.
        kinds: The kinds of task it is meant for. Whether it fits a script depends on the script alone.
        phrasings: Instructions that ask for it, each a sentence of at most 14 words.
        keywords: Regular expressions; an instruction that matches one of them asks for this recipe.
        edit: A function that changes a script in place; raises Cannot if the recipe does not fit the script.
        needs: The families of model that it tunes, where `` is the initial model; empty for any.
        gives: The family of model that it puts into the script, `` if it keeps the model.
        undoes: The recipes that it takes back, empty for most.
    """

    name: str
    axis: Axis
    effect: Effect
    kinds: tuple[str, ...]
    phrasings: tuple[str, ...]
    keywords: tuple[str, ...]
    edit: Callable[[Script], None]
    needs: tuple[str, ...] = ()
    gives: str = ""
    undoes: tuple[str, ...] = ()
