"""Edits are classified by what they change, for the scripts of any coder."""

import contextlib
import time
from pathlib import Path

import pytest

from rollout.dataset.edit_categories import edit_categories
from rollout.dataset.edit_vocabulary import PRIORITY
from rollout.scripted.recipes import RECIPES, Cannot, apply

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "tasks").glob("*/*/train.py"))
TORCH = (ROOT / "tasks/paper/cifar-10/train.py").read_text()
PHOTOS = (ROOT / "tasks/paper/dogs-vs-cats-redux-kernels-edition/train.py").read_text()
TABLE = (ROOT / "tasks/catalog/house_price/train.py").read_text()


def starts() -> list[str]:
    """Returns scripts such that every recipe fits one of them."""
    names = ("house_price", "credit_status", "digit_images", "dirty_documents", "movie_sentiment", "product_rating")
    scripts = [(ROOT / "tasks/catalog" / name / "train.py").read_text() for name in names]
    found = list(scripts)
    for script in scripts:
        for recipe in ("neural_network", "blend", "random_forest"):
            with contextlib.suppress(Cannot):
                found.append(apply(script, [recipe]))
    return found


STARTS = starts()
# The primary categories that an edit by a recipe may have.
PRIMARY = {
    "Data": {"features", "preprocessing", "augmentation"},
    "Model": {"model", "ensembling", "hyper-parameters"},
    "Learning": {
        "hyper-parameters",
        "training",
        "loss",
        "validation",
        "seed",
        "post-processing",
        "ensembling",
        "model",
    },
}
RECIPE_PRIMARY = {
    "standardize": {"preprocessing"},
    "one_hot": {"features", "preprocessing"},
    "median_impute": {"preprocessing"},
    "tfidf": {"features"},
    "shifted_copies": {"augmentation"},
    "random_forest": {"model", "ensembling"},  # the latter where it takes the place of an ensemble
    "blend": {"ensembling"},
    "bagging": {"ensembling"},
    "more_trees": {"hyper-parameters", "training"},
    "tune": {"hyper-parameters"},
    "class_weights": {"loss"},
    "new_seed": {"seed"},
    "smaller_holdout": {"validation"},
    "five_folds": {"validation"},
    "threshold": {"post-processing"},
    "seed_average": {"ensembling"},
}


def edited(source: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    return source


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_land_in_a_category_of_their_axis(name: str) -> None:
    seen = set()
    for before in STARTS:
        try:
            after = apply(before, [name])
        except Cannot:
            continue
        seen.add(edit_categories(before, after)[0])
    assert seen
    assert seen <= RECIPE_PRIMARY.get(name, PRIMARY[RECIPES[name].axis])


NETWORK = """\
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(32, 10)

    def forward(self, images):
        return self.head(self.body(images))
"""
SGD = "torch.optim.SGD(model.parameters(), lr=0.0085, momentum=0.9)"
SCHEDULER = "scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 1000)"
AUGMENTED = "def augmented(images):\n    return images.flip(3) if torch.rand(1) < 0.5 else images"
TEST_TIME = "(model(scaled(batch)) + model(scaled(batch.flip(3)))).softmax(1)"
LINE = "X_test = test[X.columns].fillna(0)"


@pytest.mark.parametrize(
    ("changes", "primary"),
    [
        ([("nn.Conv2d(8, 16, 5, stride=2, padding=2)", "nn.Conv2d(8, 64, 3, stride=2, padding=1)")], "model"),
        ([("    nn.Linear(64, 10),", "    nn.Dropout(0.3),\n    nn.Linear(64, 10),")], "model"),
        ([("@torch.no_grad()", f"{NETWORK}\n\nmodel = Network().to(device)\n\n\n@torch.no_grad()")], "model"),
        ([("model = nn.Sequential(", "model = models.resnet18(num_classes=10)\n_ = (")], "model"),
        ([("EPOCHS = 3", "EPOCHS = 12")], "training"),
        ([("BATCH = 128", "BATCH = 64")], "training"),
        ([(SGD, "torch.optim.AdamW(model.parameters(), lr=1e-3)")], "training"),
        ([("lr=0.0085", "lr=0.02")], "hyper-parameters"),
        (
            [
                ("@torch.no_grad()", f"{SCHEDULER}\n\n\n@torch.no_grad()"),
                ("        optimizer.step()", "        optimizer.step()\n        scheduler.step()"),
            ],
            "training",
        ),
        ([("X[rows])), y[rows]", "X[rows].flip(3))), y[rows]")], "augmentation"),
        (
            [("def scaled(", f"{AUGMENTED}\n\n\ndef scaled("), ("scaled(X[rows])", "scaled(augmented(X[rows]))")],
            "augmentation",
        ),
        ([("y[rows].to(device))", "y[rows].to(device), label_smoothing=0.1)")], "loss"),
        ([("SEED = 0", "SEED = 7")], "seed"),
        ([("/ 127.5 - 1", "/ 255")], "preprocessing"),
    ],
)
def test_torch_edits(changes: list[tuple[str, str]], primary: str) -> None:
    assert edit_categories(TORCH, edited(TORCH, *changes))[0] == primary


@pytest.mark.parametrize(
    ("changes", "categories"),
    [
        ([("SIZE = 48", "SIZE = 96")], ("preprocessing",)),
        ([("test_size=0.1", "test_size=0.05")], ("validation",)),
        ([("lr=1e-3", "lr=1e-3, weight_decay=0.01")], ("hyper-parameters",)),
        ([("EPOCHS = 3", "EPOCHS = 9"), ("lr=1e-3", "lr=1e-4")], ("training", "hyper-parameters")),
        (
            [("predict_proba(X_test)[:, 1]", "predict_proba(X_test)[:, 1].clip(0.01, 0.99)")],
            ("post-processing",),
        ),
        ([("model(scaled(batch)).softmax(1)", TEST_TIME)], ("augmentation",)),
    ],
)
def test_torch_edits_have_all_their_categories(changes: list[tuple[str, str]], categories: tuple[str, ...]) -> None:
    assert edit_categories(PHOTOS, edited(PHOTOS, *changes)) == categories


@pytest.mark.parametrize(
    ("changes", "categories"),
    [
        ([(LINE, f'X["age"] = 2010 - X["YearBuilt"]\n{LINE}')], ("features",)),
        ([("Lasso(alpha=2.0)", "Lasso(alpha=0.1)")], ("hyper-parameters",)),
        ([("Lasso(alpha=2.0)", "StandardScaler(), GradientBoostingRegressor()")], ("model", "preprocessing")),
        ([("Lasso(alpha=2.0)", "StandardScaler(), Lasso(alpha=2.0)")], ("preprocessing",)),
        ([("test_size=0.25, random_state=0", "test_size=0.25, random_state=1")], ("seed",)),
        ([('train = pd.read_csv("train.csv")', 'train = pd.read_csv("train.csv").dropna()')], ("preprocessing",)),
        ([("model = make_pipeline(Lasso(alpha=2.0))", "model = lgb.LGBMRegressor(num_leaves=31)")], ("model",)),
    ],
)
def test_table_edits(changes: list[tuple[str, str]], categories: tuple[str, ...]) -> None:
    assert edit_categories(TABLE, edited(TABLE, *changes)) == categories


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.parent.name)
def test_the_same_script_is_no_change_and_another_look_is_cosmetic(path: Path) -> None:
    source = path.read_text()
    assert edit_categories(source, source) == ("no change",)
    assert edit_categories(source, f"# A comment.\n{source}\n") == ("cosmetic",)
    assert edit_categories(source, f'"""What it does."""\n\n{source}') == ("cosmetic",)
    assert edit_categories(source, source.replace(", ", ",  ")) in (("cosmetic",), ("no change",))


def test_renamed_variables_and_unused_imports_are_cosmetic() -> None:
    assert edit_categories(TABLE, TABLE.replace("X_fit", "rows_fit").replace("y_fit", "target_fit")) == ("cosmetic",)
    assert edit_categories(TABLE, f"import os\n{TABLE}") == ("cosmetic",)


def test_a_script_that_is_not_python_is_unparsable() -> None:
    assert edit_categories(TABLE, "def broken(:\n") == ("unparsable",)
    assert edit_categories("def broken(:\n", TABLE)[0] == "model"
    assert edit_categories("", TABLE)[0] == "model"


def test_an_edit_that_no_rule_knows_is_other() -> None:
    assert edit_categories(TABLE, f"{TABLE}\nsay = 'done'\n") == ("other",)


def test_categories_come_in_order_of_priority() -> None:
    other = "import numpy as np\nmodel = VotingRegressor([Ridge(), MLPRegressor()])\nX = np.fliplr(X)\nSEED = 1\n"
    found = edit_categories(TABLE, other)
    assert len(found) > 4 and list(found) == sorted(found, key=PRIORITY.index)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("print(*x)", "other"),
        ("model.fit(*pair)", "other"),
        ("model = SVC(**options)", "model"),
        ("total = " + " + ".join(["x"] * 400), "other"),
        ("frame" + ".go()" * 300, "other"),
        ("x = 0x" + "f" * 6000, "other"),
    ],
    ids=["starred", "starred fit", "double-starred", "long sum", "long chain", "huge integer"],
)
def test_whatever_parses_has_a_category(statement: str, expected: str) -> None:
    assert edit_categories("x = 1\n", f"x = 1\n{statement}\n")[0] == expected


def test_a_rewritten_script_takes_no_quadratic_time() -> None:
    before, after = ("".join(f"v{i} = f{i}({a}, g(x))\n" for i in range(800)) for a in (1, 2))
    began = time.process_time()
    edit_categories(before, after)
    assert time.process_time() - began < 5.0
