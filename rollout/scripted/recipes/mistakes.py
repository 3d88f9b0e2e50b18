"""Recipes that are mistakes: edits that crash, run too long, or make the model fit noise."""

import libcst as cst

from rollout.scripted.recipes.data import unfilled
from rollout.scripted.recipes.frame import identifier, require_follows, table_code
from rollout.scripted.recipes.models import ENSEMBLE, use
from rollout.scripted.recipes.nodes import Cannot, code_of
from rollout.scripted.recipes.recipe import ALL, NUMERIC, TABULAR, TAKE_AWAY, Recipe
from rollout.scripted.recipes.script import Script
from rollout.scripted.recipes.values import set_parameter


def _keep_gaps(script: Script) -> None:
    table_code(script)
    steps = [step for step in script.steps if "SimpleImputer(" not in code_of(step)]
    before = script.source()
    unfilled(script)
    if len(steps) < len(script.steps):
        script.set_steps(steps)
    if script.source() == before:
        raise Cannot("the script fills no missing values")


def _drop_label(script: Script) -> None:
    rows = code_of(script.expression("train"))
    if '.drop(columns=["label"])' in rows:
        raise Cannot("the script already drops that column")
    if not isinstance(script.expression("train"), cst.Call):
        raise Cannot("I do not see where train is read")
    script.assign("train", f'{rows}.drop(columns=["label"])')


def _id_feature(script: Script) -> None:
    table_code(script)
    require_follows(script)
    name = identifier(script)
    features = script.expression("X")
    if f"train[{name}]" in code_of(features):
        raise Cannot("the identifier is already a feature")
    if not name[1:-1].isidentifier():
        raise Cannot(f"{name} does not become a column")
    script.assign("X", f"{code_of(features)}.assign({name[1:-1]}=train[{name}])")


def _gpu(script: Script) -> None:
    set_parameter(script, "device", "cuda")


def _normalize(script: Script) -> None:
    set_parameter(script, "normalize", True)


def _huge_forest(script: Script) -> None:
    options = "n_estimators=30000, random_state=0"
    if "n_estimators=30000" in code_of(script.core):
        raise Cannot("the forest is already huge")
    script.set_estimator(script.core)  # a wrapper would fit the forest several times
    if "RandomForest" in code_of(script.core):
        script.require(ENSEMBLE, script.pick("ExtraTreesClassifier", "ExtraTreesRegressor"))
        use(script, ENSEMBLE, f"ExtraTreesClassifier({options})", f"ExtraTreesRegressor({options})")
    else:
        use(script, ENSEMBLE, f"RandomForestClassifier({options})", f"RandomForestRegressor({options})")


RECIPES = (
    Recipe(
        "keep_gaps",
        "Data",
        "crash",
        TABULAR,
        (
            "Keep the missing values.",
            "Leave the missing values.",
            "Do not fill the missing values.",
            "Train with the missing values.",
        ),
        (r"(keep|leave|not fill|train (on|with)) (the )?missing values",),
        _keep_gaps,
    ),
    Recipe(
        "drop_label",
        "Data",
        "crash",
        ALL,
        (
            "Drop the label column.",
            "Remove the label column.",
            "Leave out the label column.",
            "Drop the column label.",
        ),
        (rf"{TAKE_AWAY}label column", rf"{TAKE_AWAY}column label"),
        _drop_label,
    ),
    Recipe(
        "id_feature",
        "Data",
        "harmful",
        NUMERIC,
        (
            "Use the id as a feature.",
            "Add the id to the features.",
            "Add the id column.",
            "Train on the id too.",
        ),
        (r"the ids?( columns?| as a feature| to the features)?", r"identifiers?"),
        _id_feature,
    ),
    Recipe(
        "huge_forest",
        "Model",
        "slow",
        ALL,
        (
            "Use a huge forest.",
            "Change the model to a huge forest.",
            "Train a huge forest.",
            "Try a huge forest.",
        ),
        (r"huge (random )?forest", r"thousands? of trees"),
        _huge_forest,
        gives="trees",
    ),
    Recipe(
        "gpu",
        "Learning",
        "crash",
        ALL,
        (
            "Train on the GPU.",
            "Use the GPU.",
            "Run the model on the GPU.",
            "Train the model on the GPU.",
        ),
        (r"gpus?", r"cuda"),
        _gpu,
    ),
    Recipe(
        "normalize_argument",
        "Learning",
        "crash",
        ALL,
        (
            "Add the normalize argument.",
            "Use the normalize argument.",
            "Train with the normalize argument.",
            "Add the normalize argument to the model.",
        ),
        (r"normali[sz]e (argument|option)", r"normalize=true"),
        _normalize,
    ),
)
