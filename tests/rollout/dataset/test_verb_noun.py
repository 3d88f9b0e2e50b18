"""An instruction's root verb and its noun, as a reader would name them."""

import pytest

from rollout.dataset.verb_noun import normal_form, verb_and_noun


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Use a random forest.", ("use", "forest")),
        ("Use StandardScaler.", ("use", "standardscaler")),
        ("Standardizes the features.", ("standardize", "feature")),
        ("Train on half of the rows.", ("train", "row")),  # a tagger of prose takes the first word for a noun
        ("Train with a lower learning rate.", ("train", "rate")),
        ("Train longer.", ("train", "")),
        ("Use naive Bayes.", ("use", "bayes")),
        ("Add bagging to the model.", ("add", "bagging")),
        ("Try using a deeper network with dropout.", ("try", "network")),
        ("Please modify the script to use cross-validation.", ("modify", "script")),
        ("In run_oak.py, replace the Lasso model with a GradientBoostingRegressor.", ("replace", "model")),
        ("2. Increase the number of epochs from 5 to 20.", ("increase", "number")),
        ("A random forest handles mixed features as they are.", ("handle", "feature")),
        ("Tune the model. Then add features.", ("tune", "model")),
        ("", ("", "")),
        ("??", ("", "")),
    ],
)
def test_root_verb_and_its_noun(instruction: str, found: tuple[str, str]) -> None:
    assert verb_and_noun(instruction) == found


def test_file_names_spaces_and_case_tell_no_instructions_apart() -> None:
    texts = ("In run_oak.py use  TF-IDF.", "in run_fern_pine.py use TF-IDF", " In data.csv use tf-idf. ")
    assert {normal_form(text) for text in texts} == {"in script use tf-idf"}
    assert normal_form("Use more trees.") != normal_form("Use more words.")
