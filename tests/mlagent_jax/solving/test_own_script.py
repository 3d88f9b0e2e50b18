"""A user's own script is improved by the score that it prints."""

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlagent_jax.solving.command import main
from mlagent_jax.solving.own_script import PrintedScore, kind_of, score_pattern
from rollout.types import Execution, Exit, Job
from tasks.feedback import validation_score

SCRIPT = """\
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

train = pd.read_csv("tables/flats.csv")
y = train["price"]
X = train.drop(columns=["price"])
X_fit, X_val, y_fit, y_val = train_test_split(X, y, test_size=0.3, random_state=1)
model = make_pipeline(StandardScaler(), Ridge())
model.fit(X_fit, y_fit)
print("my rmse =", root_mean_squared_error(y_val, model.predict(X_val)), "in all")
"""


@dataclass
class Prints:
    """An executor whose runs print a text."""

    text: str
    exit: Exit = Exit.OK

    async def run(self, job: Job) -> Execution:
        return Execution(self.exit, self.text, None, 1.0, "fake")


def run(text: str, score: str = "my rmse = *", end: Exit = Exit.OK) -> Execution:
    return asyncio.run(PrintedScore(Prints(text, end), score_pattern(score), "rmse").run(Job("a.py", {})))


@pytest.mark.parametrize("text", ["my rmse = 0.5\n", "my rmse = 3\nmy rmse = 5e-1 left\n", "x my rmse = .5"])
def test_the_last_printed_score_counts(text: str) -> None:
    found = run(text)
    assert (found.submission, validation_score(found.output)) in ((b"0.5", 0.5), (b"5e-1", 0.5), (b".5", 0.5))
    assert found.output.startswith(text.rstrip()), "the agent reads what the script prints"


@pytest.mark.parametrize("text", ["", "my mae = 3", "my rmse = nan", "my rmse = inf"])
def test_a_script_without_a_score_leaves_no_valid_submission(text: str) -> None:
    assert run(text).submission == b""


def test_a_script_that_crashed_has_no_score() -> None:
    assert run("my rmse = 3", end=Exit.CRASHED).submission is None


def test_a_score_line_has_one_star_and_its_other_characters_stand_for_themselves() -> None:
    assert score_pattern("[rmse] (*)").findall("[rmse] (0.25)") == ["0.25"]
    for score in ("rmse", "* *"):
        with pytest.raises(ValueError, match="with \\* for the number"):
            score_pattern(score)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (SCRIPT, "tabular-regression"),
        ("model = LogisticRegression()", "tabular-classification"),
        ("CountVectorizer(), RandomForestRegressor()", "text-regression"),
    ],
)
def test_the_kind_of_problem_is_seen_from_the_script(source: str, kind: str) -> None:
    assert kind_of(source) == kind


def test_a_script_is_improved_in_place_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    (tmp_path / "tables").mkdir()
    rows = [(rng.uniform(-3, 3), rng.uniform(-3, 3)) for _ in range(300)]
    lines = [f"{a:.3f},{b:.3f},{a * a + abs(b) + rng.gauss(0, 0.2):.3f}" for a, b in rows]
    (tmp_path / "tables/flats.csv").write_text("a,b,price\n" + "\n".join(lines) + "\n")
    (tmp_path / "mine.py").write_text(SCRIPT)
    options = "--steps 4 --trajectories 3 --search best-of --seed 1 --minutes 3".split()
    out = tmp_path / "out"
    command = ["--script", str(tmp_path / "mine.py"), "--score", "my rmse = *", "--out", str(out), *options]
    assert main(command) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["choice"] < 0.6 * result["initial"]["choice"] and result["report"] is None
    assert result["files"] == ["mine.py", "requirements.txt"]
    assert 'read_csv("tables/flats.csv")' in (out / "best/mine.py").read_text()
    assert "The same score chose it: expect a little less." in capsys.readouterr().out
    (tmp_path / "mine.py").write_text("print('hello')")
    other = ["--out", str(tmp_path / "other")]
    assert main([*command, *other]) == 2
    assert "the script printed no score as in --score; its last line: hello" in capsys.readouterr().err
    assert main([*command, *other, "--score", "loss *"]) == 2
    assert "names no known metric; add --direction maximize or minimize" in capsys.readouterr().err
