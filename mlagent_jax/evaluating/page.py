"""report.html of `mlagent evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mlagent_jax.reporting.figures import PALETTES, palette_style, svg_url
from mlagent_jax.reporting.page import gain_text, render
from tasks.registry import entries

SPLITS = {"held_in": "held-in tasks", "held_out": "held-out tasks", "all": "all tasks"}
MIN_TASKS = 5  # fewer make intervals that are too narrow
LEVEL = 0.05  # below which a corrected p-value counts as beyond chance


def render_page(result: Mapping[str, Any]) -> str:
    """Return the page of the results, as `evaluate_agents` returns them."""
    agents = result["agents"]
    splits = {split: text for split, text in SPLITS.items() if any(split in each for each in agents.values())}
    if len(splits) == 2:  # a single split is all there is
        del splits["all"]
    order = list(agents)  # the largest gain first
    return render(
        Path(__file__).with_name("page_template.html"),
        result=result,
        options=result["options"],
        order=order,
        splits=splits,
        headline=headline(result, order),
        figures={split: _figures(agents, order, split) for split in splits},
        least_p={split: least_p(_num_tasks(agents, split)) for split in splits},
        few=[text for split, text in splits.items() if _num_tasks(agents, split) < MIN_TASKS],
        has_medals=any(each["medals"]["attempts"] for each in agents.values()),
        paper=paper_rows(result, order),
        notes=[
            f"{agent} on {task}: {note}"
            for task, each in result["tasks"].items()
            for agent, own in each["agents"].items()
            for note in own["notes"]
        ],
    )


def headline(result: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the first sentence of the page."""
    agents, num_tasks = result["agents"], len(result["tasks"])
    tasks = f"{num_tasks} task{'s' if num_tasks > 1 else ''}"
    if not order:
        return "No agent was evaluated."
    best = agents[order[0]]["all"]["gain"]
    if best["mean"] <= 0:
        return f"On {tasks}, no agent improves on the initial script."
    text = (
        f"On {tasks}, {order[0]} reaches the largest mean gain, {gain_text(best['mean'])} "
        f"({gain_text(best['low'])} to {gain_text(best['high'])})"
    )
    sure = [
        row["other"] if row["agent"] == order[0] else row["agent"]
        for row in result["differences"]
        if row["split"] == "all" and order[0] in (row["agent"], row["other"]) and row["corrected_p"] < LEVEL
    ]
    others = [name for name in order[1:] if name not in sure]
    num_pairs = len(order) * (len(order) - 1) // 2
    if others and num_pairs * least_p(num_tasks) >= LEVEL:
        return (
            f"{text}; with {num_tasks} tasks and {len(order)} agents no difference can be told from chance after the "
            "correction for their number."
        )
    if sure:
        text += f"; more than {_listed([name for name in order if name in sure])} beyond chance"
    if others:
        text += f"; its difference from {_listed(others)} may be chance"
    return f"{text}."


def least_p(num_tasks: int) -> float:
    """Return the least p-value of a sign-flip test over tasks."""
    return 2 / 2**num_tasks


def paper_rows(result: Mapping[str, Any], order: Sequence[str]) -> list[dict[str, Any]]:
    """Return the paper's scores beside ours, for tasks that the paper has."""
    known = entries(tuple(map(Path, result["options"]["paths"])))
    return [
        {"task": name, "paper": known[name].paper, "agents": [each["agents"].get(agent) for agent in order]}
        for name, each in result["tasks"].items()
        if name in known and known[name].paper is not None
    ]


def _num_tasks(agents: Mapping[str, Any], split: str) -> int:
    return max((each[split]["tasks"] for each in agents.values() if split in each), default=0)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _figures(agents: Mapping[str, Any], order: Sequence[str], split: str) -> dict[str, str]:
    """Return the gains of all agents with their intervals, as one SVG for each palette."""
    rows = [(name, agents[name][split]["gain"]) for name in reversed(order) if split in agents[name]]
    found = {}
    for palette_name, palette in PALETTES.items():
        with matplotlib.rc_context(palette_style(palette)):
            figure = Figure(figsize=(5.6, 0.9 + 0.38 * len(rows)), layout="constrained")
            axes = figure.add_subplot()
            axes.axvline(0, color=palette["muted"], lw=1)
            for place, (_, gain) in enumerate(rows):
                axes.plot([gain["low"], gain["high"]], [place, place], color=palette["accent"], lw=2)
                axes.plot(gain["mean"], place, "o", ms=6, color=palette["accent"])
            axes.set_yticks(range(len(rows)), [name for name, _ in rows])
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel("gain: 0 is the initial script, 1 the best known score")
            found[palette_name] = svg_url(figure)
    return found
