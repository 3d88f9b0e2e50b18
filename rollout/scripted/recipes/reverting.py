"""Recipes that remove the last step before the model, or the wrappers around the model."""

import libcst as cst

from rollout.scripted.recipes.data import IMPUTERS
from rollout.scripted.recipes.ensembles import DENSE
from rollout.scripted.recipes.models import gives_probabilities
from rollout.scripted.recipes.nodes import Cannot, call_name
from rollout.scripted.recipes.recipe import ALL, TAKE_AWAY, Recipe
from rollout.scripted.recipes.script import Script, unwrap

STEPS = (
    "standardize",
    "scale_to_range",
    "quantiles",
    "skewed_columns",
    "splines",
    "products",
    "two_components",
    "select_best",
    "topics",
    "unit_rows",
    "edges",
)
AROUND = ("bagging", "blend", "stacking", "tune", "log_target", "calibrate", "threshold", "seed_average")


def _remove_step(script: Script) -> None:
    steps, names = script.steps, script.step_names()
    first = int(script.is_text)
    index = max((i for i in range(first, len(steps) - 1) if names[i] not in IMPUTERS), default=None)
    if index is None:
        raise Cannot("there is no step before the model to remove")
    if script.is_text and names[index] == "TruncatedSVD" and call_name(script.core).startswith(DENSE):
        raise Cannot("the model takes no counts of words")
    script.set_steps([*steps[:index], *steps[index + 1 :]])


def _plain_model(script: Script) -> None:
    last = script.steps[-1]
    new = unwrap(last)
    if call_name(new).startswith(("Voting", "Stacking")) and new.args and isinstance(new.args[0].value, cst.List):
        first = new.args[0].value.elements[0].value
        if isinstance(first, cst.Tuple) and isinstance(inner := first.elements[-1].value, cst.Call):
            new = unwrap(inner)
    if new is last:
        raise Cannot("the model is already plain")
    if script.needs_probabilities and not gives_probabilities(new):
        raise Cannot(f"{call_name(new)} alone gives no probabilities")
    script.set_steps([*script.steps[:-1], new])


RECIPES = (
    Recipe(
        "remove_step",
        "Data",
        "harmless",
        ALL,
        (
            "Remove the last step.",
            "Drop the last step.",
            "Remove the step before the model.",
            "Drop the step before the model.",
        ),
        (rf"{TAKE_AWAY}(last|second last) step( before the model)?", rf"{TAKE_AWAY}step before the model"),
        _remove_step,
        undoes=STEPS,
    ),
    Recipe(
        "plain_model",
        "Model",
        "harmless",
        ALL,
        (
            "Go back to the plain model.",
            "Use the plain model.",
            "Train the plain model.",
            "Change the model to the plain model.",
        ),
        (r"plain model", r"model (alone|by itself)"),
        _plain_model,
        gives="plain",
        undoes=AROUND,
    ),
)
