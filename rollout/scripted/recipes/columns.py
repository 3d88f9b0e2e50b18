"""Recipes on the Data axis for tables: target encoding, flags of missing values, skewed columns."""

from rollout.scripted.recipes.data import ENCODERS, scale, unfilled
from rollout.scripted.recipes.frame import require_follows, require_numeric, table_code
from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, parse_call, with_keyword
from rollout.scripted.recipes.recipe import TABULAR, Recipe
from rollout.scripted.recipes.script import Script

MEDIANS = 'SimpleImputer(strategy="median")'


def _target_encoding(script: Script) -> None:
    table = table_code(script)
    require_follows(script)
    if ENCODERS.intersection(script.step_names()) or "get_dummies" in code_of(script.expression("X")):
        raise Cannot("the categorical columns are already encoded")
    kind = script.pick("", 'target_type="continuous", ')
    words = f'(TargetEncoder({kind}random_state=0), make_column_selector(dtype_exclude="number"))'
    script.assign("X", table)
    script.assign("X_test", "test[X.columns]")  # the encoder imputes; filling a column of words with zero would fail
    steps = [step for step in script.steps if call_name(step) != "SimpleImputer"]
    for module, name in (
        ("sklearn.compose", "make_column_selector"),
        ("sklearn.compose", "make_column_transformer"),
        ("sklearn.impute", "SimpleImputer"),
        ("sklearn.preprocessing", "TargetEncoder"),
    ):
        script.require(module, name)
    script.set_steps([parse_call(f"make_column_transformer({words}, remainder={MEDIANS})"), *steps])


def _missing_flags(script: Script) -> None:
    require_numeric(script)
    names = script.step_names()
    if ENCODERS.intersection(names):
        raise Cannot("the encoder fills the gaps already")
    if "SimpleImputer" not in names:
        script.add_step("sklearn.impute", MEDIANS, 0)
    steps = script.steps
    position = script.step_names().index("SimpleImputer")
    new = with_keyword(steps[position], "add_indicator", True)
    if code_of(new) == code_of(steps[position]):
        raise Cannot("the missing values are already flagged")
    script.set_steps([*steps[:position], new, *steps[position + 1 :]])
    unfilled(script)


def _power(script: Script) -> None:
    require_numeric(script)
    scale(script, "PowerTransformer()")


RECIPES = (
    Recipe(
        "target_encoding",
        "Data",
        "good",
        TABULAR,
        (
            "Use target encoding.",
            "Use TargetEncoder.",
            "Encode the categorical columns by the target.",
            "Use target encoding for the categorical columns.",
        ),
        (
            r"target[ -]?encod\w*( (of|for) (the )?categorical columns)?",
            r"(categorical columns|words) by the (mean )?target",
        ),
        _target_encoding,
    ),
    Recipe(
        "missing_flags",
        "Data",
        "harmless",
        TABULAR,
        (
            "Add flags for missing values.",
            "Flag the missing values.",
            "Add a flag of missing values.",
            "Use flags of missing values.",
        ),
        (
            r"flags?( (for|of))?( the)? missing values?",
            r"missing values? (flags?|indicators?)",
            r"which values are missing",
        ),
        _missing_flags,
    ),
    Recipe(
        "skewed_columns",
        "Data",
        "harmless",
        TABULAR,
        (
            "Use PowerTransformer.",
            "Add a power transform.",
            "Transform the skewed columns.",
            "Make the columns less skewed.",
        ),
        (r"power ?transform\w*", r"(reduce )?skewed (columns|features)", r"less skewed"),
        _power,
    ),
)
