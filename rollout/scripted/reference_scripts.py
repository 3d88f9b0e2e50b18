"""Scripts that an engineer would try first, from which the best known score of a user's task is estimated."""

from collections.abc import Iterator

from rollout.scripted.recipes import Cannot, apply

# Each line is one script; a recipe that does not fit is skipped.
REFERENCES = (
    ("one_hot", "median_impute", "linear_model"),
    ("one_hot", "random_forest", "more_trees"),
    ("one_hot", "gradient_boosting", "more_trees"),
    ("one_hot", "log_target", "gradient_boosting"),
    ("larger_vocabulary", "tfidf", "linear_model", "weaker_regularisation"),
    ("larger_vocabulary", "naive_bayes"),
    ("larger_vocabulary", "bigrams", "linear_model"),
)


def reference_scripts(script: str) -> Iterator[str]:
    """Yield the distinct scripts that the reference recipes make from a script."""
    seen = {script}
    for recipes in REFERENCES:
        source = script
        for recipe in recipes:
            try:
                source = apply(source, [recipe])
            except Cannot:
                continue
        if source not in seen:
            seen.add(source)
            yield source
