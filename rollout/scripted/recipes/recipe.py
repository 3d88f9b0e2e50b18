"""What a recipe is: a structural edit of a script, how it is asked for, and where it is meant to be used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rollout.scripted.recipes.script import Script

Axis = Literal["Data", "Model", "Learning"]
Effect = Literal["good", "harmless", "harmful", "slow", "crash"]

TEXT = ("text-classification", "text-regression", "text-ordinal")
TABULAR = ("tabular-classification", "tabular-regression")
NUMERIC = (*TABULAR, "image-classification", "image-denoising")
REGRESSION = ("tabular-regression", "text-regression")  # of amounts: ratings and pixels have no logarithm worth taking
IMAGES = ("image-classification", "image-denoising")
NUMBERS = (*REGRESSION, "image-denoising", "text-ordinal")  # what scripts predict as a number
CLASSIFICATION = ("tabular-classification", "image-classification", "text-classification")
ALL = (*NUMERIC, *TEXT)
REMOVING = (
    "no|without|skip(?:ping)?|undo(?:ing)?|remov(?:e|ing)|delet(?:e|ing)|drop(?:ping)?|leav(?:e|ing) out|"
    "ignor(?:e|ing)|exclud(?:e|ing)|get(?:ting)? rid of"
)
# Before the keywords of what takes something away, which would else be taken for being turned down.
TAKE_AWAY = f"((?:{REMOVING})( the| all| any| of| very)* )?"


@dataclass(frozen=True)
class Recipe:
    """One edit of a training script.

    Attributes:
        name: what it is called in records.
        axis: the axis of ideas it belongs to.
        effect: what an ML engineer would expect of it; what it does is measured, task by task.
        kinds: the kinds of task it is meant for. Whether it fits a script is decided by the script alone.
        phrasings: instructions that ask for it, each a sentence of at most 14 words.
        keywords: regular expressions; any of them in an instruction means this recipe.
        edit: changes a script in place; raises Cannot where the script has nothing to change.
        needs: families of model it tunes, `` for the one a task starts from; empty where any will do.
        gives: the family of model it leaves in the script, `` where it leaves the model alone.
        undoes: the recipes it takes back, if it is there to take something back.
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
