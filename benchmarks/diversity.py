"""Compare the diversity of edits with and without idea prompts, at equal numbers of edits, with intervals.

    nice -n 15 python -m benchmarks.diversity [--out runs/diversity] [--results benchmarks/results/diversity]
                                              [--trajectories 300] [--config configs/full_suite.yaml]
                                              [key.sub=value ...]

The scripted expert collects on the same tasks with the same seeds, in the real environment, three times: with idea
prompts; without them (`ideas.source=none`), in which case it is assumed to prefer a few favorites; and without
prompts but with its habits from the first arm, which isolates the effect of the prompts. Writes diversity.json,
diversity.md and diversity.svg.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import machine, write_results
from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.configuration.schema import Config
from mlagent_jax.reporting.figures import STYLE
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.context import open_run_context
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.collect import make_pools
from mlagent_jax.tracking.progress import Reporter
from rollout.dataset.diversity import diversity, read_edits, table
from rollout.exploration.draws import BalancedDraws
from rollout.sampling.collection import collect, plan_collection
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.recipes import recognize
from rollout.storage.atomic_write import write_json
from tasks.quoting import shell_command, user_path

# Arm -> its name in tables and pictures. The others are compared with the first.
ARMS = {"ideas": "with idea prompts", "own": "no prompts, same habits", "none": "no prompts, favorites only"}
NUM_VERBS = 10  # drawn; the others share one wedge


def collect_arms(config: Config, run_dir: RunDir) -> None:
    """Collect the trajectories of every arm into a folder of its name; existing ones stay."""
    sections = config.tasks, config.executor, config.prompt, config.observation, config.expert, config.coder
    opening = open_run_context(run_dir, *sections, Reporter())
    with run_dir.lock(), opening as context:
        tasks = context.of_split("held_in")
        draws = BalancedDraws(make_pools(config, run_dir, context, tasks), config.seed)
        for arm in ARMS:
            ideas = draws if arm == "ideas" else lambda task, rng: ()
            context.event_loop.run(
                collect(
                    run_dir.path(arm),
                    plan_collection(tasks, config.collect.num_trajectories, config.seed, ideas),
                    context.environment,
                    ScriptedExpert(config.collect.max_steps, explores=arm != "none"),
                    max_steps=config.collect.max_steps,
                    max_seconds=60 * config.collect.max_minutes,
                    num_concurrent=context.num_concurrent,
                )
            )
            print(f"{arm}: collected", flush=True)


def picture(whole: Mapping[str, Any], path: Path) -> None:
    """Draw the root verbs and nouns of each set as two rings, by their shares of all edits."""
    with matplotlib.rc_context({**STYLE, "font.size": 6.5, "svg.hashsalt": "diversity"}):
        figure = Figure(figsize=(4.0 * len(whole), 4.4), layout="constrained")
        verbs = [found["verb"] for measured in whole.values() for found in measured["verb_nouns"][:NUM_VERBS]]
        palette = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
        # A verb has one color in all rings. In tab20 a strong color is followed by its pale twin.
        colors = dict(zip(dict.fromkeys(verbs), (*palette[::2], *palette[1::2]), strict=False))
        for axes, (name, measured) in zip(figure.subplots(1, len(whole), squeeze=False)[0], whole.items(), strict=True):
            _rings(axes, measured["verb_nouns"][:NUM_VERBS], colors)
            pairs = f"{measured['distinct_pairs']:.0f} verb-noun pairs in {measured['num_edits']} edits"
            axes.set_title(f"{ARMS.get(name, name)}\n{pairs}", fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _rings(axes: Axes, verbs: Sequence[Mapping[str, Any]], colors: Mapping[str, tuple[float, ...]]) -> None:
    inner, outer = [], []
    for found in verbs:
        color = colors.get(found["verb"], (0.5, 0.5, 0.5))
        inner.append((found["share"], found["verb"], color))
        rest = found["share"]
        for place, (noun, share) in enumerate(found["nouns"].items()):
            outer.append((share, noun, (*color, 0.75 - 0.12 * place)))
            rest -= share
        outer.append((max(rest, 0.0), "", (*color, 0.15)))
    other = max(0.0, 1.0 - sum(share for share, _, _ in inner))
    inner.append((other, "other", "#d5dae0"))
    outer.append((other, "", "#eef0f2"))
    edge = {"edgecolor": "white", "linewidth": 0.6}
    for wedges, radius, width, distance, least in ((inner, 0.62, 0.4, 0.66, 0.03), (outer, 1.0, 0.37, 0.82, 0.018)):
        shares = [share for share, _, _ in wedges]
        labels = [label if share >= least else "" for share, label, _ in wedges]
        axes.pie(
            shares,
            labels=labels,
            colors=[color for _, _, color in wedges],
            radius=radius,
            labeldistance=distance,
            rotatelabels=True,
            startangle=90,
            counterclock=False,
            wedgeprops={"width": width, **edge},
            textprops={"ha": "center", "va": "center", "rotation_mode": "anchor"},
        )


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown."""
    titles = ", ".join(f"`{name}`: {title}" for name, title in ARMS.items())
    return "\n\n".join([f"`{result['command']}`", f"{titles}.", table(result["collections"])])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, default=Path("runs/diversity"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/diversity"))
    parser.add_argument("--trajectories", type=int, default=300)
    parser.add_argument("--config", type=user_path, default=Path("configs/full_suite.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    overrides = [f"run_dir={arguments.out}", f"collect.num_trajectories={arguments.trajectories}"]
    config = load_config(arguments.config, [*overrides, *arguments.settings])
    run_dir, seed = RunDir(arguments.out), config.seed
    settings = arguments.out / "settings.json"
    asked = {name: to_dict(config)[name] for name in ("tasks", "ideas", "collect", "seed")}
    if settings.exists() and json.loads(settings.read_text()) != asked:
        sys.exit(f"{arguments.out} holds collections of other settings, in settings.json; name another folder by --out")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(settings, asked)
    collect_arms(config, run_dir)
    units = {name: read_edits(run_dir.path(name), recognize) for name in ARMS}
    result: dict[str, Any] = {"commit": commit(), "versions": versions(DISTRIBUTIONS), "machine": machine()}
    result |= {"command": shell_command("python", "-m", "benchmarks.diversity", *sys.argv[1:]), "seed": seed}
    result |= {"collections": diversity(units, seed)}
    write_results(arguments.results, "diversity", result, to_markdown(result))
    picture(result["collections"]["whole"], arguments.results / "diversity.svg")
    print(to_markdown(result))


if __name__ == "__main__":
    main()
