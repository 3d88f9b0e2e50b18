"""`mlagent solve` on tables with known structure, in the real sandbox, with the scripted agent."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlagent_jax
from mlagent_jax.solving.command import main
from mlagent_jax.solving.options import SolveOptions
from rollout.storage.journal import read_journal

NUM_ROWS = 400


def truth(size: float, zone: str) -> float:
    return size * size / 50 + {"north": 0.0, "south": 30.0, "east": 60.0}[zone]


def write_flats(file: Path, num_rows: int = NUM_ROWS, with_price: bool = True, seed: int = 0) -> Path:
    """Write flats whose price is a curve of the size plus a constant of the zone, which no linear model of size has."""
    rng = random.Random(seed)
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["flat", "size", "zone", *(["price"] if with_price else [])])
        for row in range(num_rows):
            size, zone = round(rng.uniform(10, 90), 2), rng.choice(["north", "south", "east"])
            price = [round(truth(size, zone) + rng.gauss(0, 2), 2)] if with_price else []
            writer.writerow([f"f{row}", size, zone, *price])
    return file


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


OPTIONS = "--target price --id flat --steps 4 --trajectories 3 --search best-of --seed 1 --minutes 3"
ARGUMENTS = OPTIONS.split()
SOLVE = (sys.executable, "-m", "mlagent_jax.solve")


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search, with predictions of new rows."""
    folder = tmp_path_factory.mktemp("solved")
    table, new = write_flats(folder / "flats.csv"), write_flats(folder / "new.csv", 30, with_price=False, seed=1)
    before = set(folder.parent.iterdir())
    status = main(["--csv", str(table), "--test", str(new), "--out", str(folder / "out"), *ARGUMENTS])
    assert status == 0
    assert set(folder.parent.iterdir()) == before
    return folder


def test_the_delivered_script_is_better_on_rows_that_chose_nothing(solved):
    result = json.loads((solved / "out/result.json").read_text())
    report = result["report"]
    assert report["num_rows"] == 60
    assert report["difference"]["high"] < 0, "an error"
    assert report["score"]["value"] < 0.7 * report["initial"]["value"]
    assert (result["metric"], result["num_actions"], result["end"]) == ("rmse", 12, "actions")
    assert sum(row["is_delivered"] for row in result["finalists"]) == 1
    assert result["optimism"] == pytest.approx(report["score"]["value"] - result["validation"])


def test_new_rows_are_predicted_in_their_order_under_the_users_names(solved):
    predicted, rows = read_csv(solved / "out/best/predictions.csv"), read_csv(solved / "new.csv")
    assert list(predicted[0]) == ["flat", "price"]
    assert [row["flat"] for row in predicted] == [row["flat"] for row in rows]
    errors = [
        float(guess["price"]) - truth(float(row["size"]), row["zone"])
        for guess, row in zip(predicted, rows, strict=True)
    ]
    result = json.loads((solved / "out/result.json").read_text())
    assert (sum(error**2 for error in errors) / len(errors)) ** 0.5 < 1.5 * result["report"]["score"]["high"]


def test_the_predictor_predicts_the_same_rows_alike_and_one_row_alone(solved, tmp_path):
    best = solved / "out/best"
    for rows in (read_csv(solved / "new.csv"), read_csv(solved / "new.csv")[4:5]):
        with (tmp_path / "rows.csv").open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        command = [sys.executable, best / "predict.py", tmp_path / "rows.csv", tmp_path / "predicted.csv"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        expected = {row["flat"]: float(row["price"]) for row in read_csv(best / "predictions.csv")}
        for row in read_csv(tmp_path / "predicted.csv"):
            assert float(row["price"]) == pytest.approx(expected[row["flat"]])
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("flat,size,zone\nf,large,north\n")
    done = subprocess.run([*command[:2], wrong, tmp_path / "x.csv"], capture_output=True, text=True)
    assert done.returncode == 2 and "column 'size' holds 'large' in row 1 (line 2)" in done.stderr
    assert not (tmp_path / "x.csv").exists()


def test_no_hidden_label_is_in_what_the_agent_could_read(solved):
    work = solved / "out/work"
    train, test = (read_csv(work / f"data/flats/public/{name}.csv") for name in ("train", "test"))
    assert (len(train), len(test)) == (280, 120) and "target" not in test[0]
    shown, hidden = ({row["size"] for row in rows} for rows in (train, test))
    prices = {row["size"]: row["price"] for row in read_csv(solved / "flats.csv")}
    texts = "".join(path.read_text(errors="replace") for path in (work / "blobs").rglob("*") if path.is_file())
    for size in hidden - shown:
        assert f"{size},{prices[size]}" not in texts
    choose, report = ((work / f"parts/{part}.txt").read_text().split() for part in ("choose", "report"))
    assert set(choose).isdisjoint(report) and len(choose) + len(report) == 120


def test_the_folder_has_a_readable_script_and_the_versions_it_ran_with(solved):
    best = solved / "out/best"
    source = (best / "train.py").read_text()
    assert source.startswith("# The initial script after these edits:\n# - ")
    assert 'pd.read_csv("train.csv")' in source and "data_" not in source
    compile(source, "train.py", "exec")
    assert "scikit-learn==" in (best / "requirements.txt").read_text()
    assert len(read_csv(best / "train.csv")) == NUM_ROWS


def test_the_page_says_what_the_result_says(solved):
    page = (solved / "out/report.html").read_text()
    result = json.loads((solved / "out/result.json").read_text())
    assert f"{result['report']['score']['value']:.4g}" in page
    assert page.count("<details") == result["num_actions"] + 1
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_finished_search_goes_on_with_more_steps_and_is_not_overwritten(solved, capsys, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(solved / "out", folder)
    assert main(["--csv", str(solved / "flats.csv"), "--out", str(folder), *ARGUMENTS]) == 2
    assert "holds a search already; go on with --resume" in capsys.readouterr().err
    assert main(["--resume", "--out", str(folder), "--steps", "5"]) == 0
    assert json.loads((folder / "result.json").read_text())["num_actions"] == 15
    assert read_journal(folder / "work/search.jsonl")[:12] == read_journal(solved / "out/work/search.jsonl")
    assert main(["--resume", "--out", str(folder), "--seed", "4"]) == 2
    assert "leave --seed out, or start another" in capsys.readouterr().err


def start_solving(folder: Path, num_actions: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start a search in `folder/out`, and return its process once it has journaled so many actions."""
    table = write_flats(folder / "flats.csv")
    command = [*SOLVE, "--csv", str(table), "--out", str(folder / "out"), *ARGUMENTS, *arguments]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(read_journal(folder / "out/work/search.jsonl")) < num_actions and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path):
    journal = tmp_path / "out/work/search.jsonl"
    process = start_solving(tmp_path, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = read_journal(journal)
    assert 3 <= len(before) < 12
    done = subprocess.run([*SOLVE, "--resume", "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_journal(journal)[: len(before)] == before
    assert json.loads((tmp_path / "out/result.json").read_text())["num_actions"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"flats.csv", "out"}


@pytest.mark.slow
def test_ctrl_c_writes_the_best_so_far(tmp_path):
    process = start_solving(tmp_path, 5, "--steps", "40")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["end"] == "interrupted" and result["num_actions"] < 120
    assert (tmp_path / "out/best/train.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "state what to solve: --csv FILE with --target COLUMN, --task NAME, or --script FILE"),
        (["--csv", "a.csv"], "--csv needs --target"),
        (["--csv", "missing.csv", "--target", "y"], "there is no file missing.csv"),
        (["--task", "hous_price"], "unknown task 'hous_price' (nearest: house_price)"),
        (["--task", "house_price", "--minutes", "0"], "--minutes is 0.0; expected a number above 0"),
        (["--task", "house_price", "--agent", "models/none"], "--agent models/none is no model"),
        (["--task", "house_price", "--agent", "https://x/v1"], "needs --model"),
        (["--task", "house_price", "--agent", "https://x/v1", "--model", "m"], "give --coder a model too"),
        (["--task", "house_price", "--dollars", "2"], "--dollars is a limit on endpoints"),
        (["--task", "house_price", "--metric", "rmse"], "--metric goes with --csv"),
        (["--task", "house_price", "--seed", "-1"], "--seed is -1; expected 0 or more"),
        (["--task", "house_price", "--holdout", "0.97"], "--holdout is 0.97; expected a share up to 0.9"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "nowhere"], "there is no search in nowhere"),
    ],
)
def test_what_cannot_be_solved_is_refused_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_dry_run_says_what_would_leave_the_machine_and_sends_nothing(tmp_path, capsys):
    table = write_flats(tmp_path / "flats.csv")
    common = ["--csv", str(table), "--target", "price", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(common) == 0
    assert capsys.readouterr().out == "nothing leaves this machine\n"
    there = [
        "--agent",
        "http://127.0.0.1:9/v1",
        "--model",
        "m",
        "--coder",
        "http://127.0.0.1:9/v1",
        "--coder-model",
        "c",
    ]
    assert main([*common, *there]) == 0
    said = capsys.readouterr().out
    assert "to http://127.0.0.1:9/v1, model m, for each action" in said
    assert "predict price (column target)" in said and "first 20,000 characters of a file" in said
    assert not (tmp_path / "out").exists()


def test_a_search_without_time_for_an_action_delivers_the_first_script_and_says_so(tmp_path, capsys):
    table = write_flats(tmp_path / "flats.csv")
    assert main(["--csv", str(table), "--out", str(tmp_path / "out"), *ARGUMENTS, "--minutes", "0.01"]) == 0
    said = capsys.readouterr()
    assert "the time was up before an action ended; raise --minutes" in said.out + said.err
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["num_actions"] == 0 and (tmp_path / "out/best/train.py").exists()


def test_the_function_is_in_the_package_and_takes_the_options_of_the_command(tmp_path):
    table = write_flats(tmp_path / "flats.csv")
    options = {"target": "price", "steps": 2, "trajectories": 1, "minutes": 2.0}
    options |= {"csv": str(table), "out": str(tmp_path / "out")}
    result = mlagent_jax.solve(**options)
    assert result.num_actions == 2 and result.best == tmp_path / "out/best"
    with pytest.raises(ValueError, match="--csv needs --target"):
        SolveOptions(out=tmp_path, csv=table)
