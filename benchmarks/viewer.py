"""Measure a page of ten thousand trajectories: writing it, its size, and opening and using it in a browser.

    python -m benchmarks.viewer RUN [--number 10000] [--steps 15] [--rounds 5] [--results benchmarks/results/viewer]

RUN is the directory of a run that has collected. Its trajectories are multiplied: each gets as many steps as requested,
those of other trajectories of its task after its own, and a new id. A separate process writes the page with whole
edits, and its peak memory is reported. Then a browser opens the file, a new one each time, and waits for the list; a
filter by task, and one by words; a trajectory from an address, whose chunk was not opened before; and a search of all
texts. Reports medians of the rounds, by the clock and by the CPU time of the page's main thread, which does not depend
on other load of the machine.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.browser import open_browser
from benchmarks.figures import machine, table, write_results
from mlagent_jax.reporting.summary import commit
from rollout.dataset.viewer import find_collection, write_page
from rollout.dataset.viewer.collection_page import load_tasks
from rollout.dataset.viewer.page import json_line
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import read_trajectories, to_record
from rollout.types import Trajectory
from tasks.quoting import user_path

NUM_OPENED = 8  # trajectories of one round, far apart
# Perform an action and return the milliseconds until an element has changed and was drawn.
UNTIL_CHANGED = """([selector, act, enough]) => new Promise((done) => {
    const element = document.querySelector(selector), start = performance.now();
    const observer = new MutationObserver(() => {
        if (!new RegExp(enough).test(element.textContent)) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
    });
    observer.observe(element, {childList: true, subtree: true});
    const set = (name, value) => {
        const input = document.querySelector(`[name=${name}]`);
        if (input.type === "checkbox") input.checked = value; else input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    };
    if (act.hash) location.hash = act.hash;
    for (const [name, value] of Object.entries(act.set ?? {})) set(name, value);
})"""


def multiplied(sample: Sequence[Trajectory], number: int, steps: int) -> Iterator[Trajectory]:
    """Yield `number` trajectories of `steps` steps each, made from the sample."""
    of_task: dict[str, list[Trajectory]] = defaultdict(list)
    for one in sample:
        of_task[one.task].append(one)
    for index in range(number):
        first = sample[index % len(sample)]
        others = of_task[first.task]
        place = others.index(first)
        joined = list(first.steps)
        while len(joined) < steps:
            place += 1 + index // len(sample)  # other steps in each copy
            joined += others[place % len(others)].steps
        yield replace(first, trajectory_id=f"{first.trajectory_id}-{index:06d}", steps=tuple(joined[:steps]))


def write(run_dir: Path, page: Path, number: int, steps: int) -> dict[str, Any]:
    """Return the cost of writing the page: seconds, CPU seconds, peak memory, and memory before, in MB."""
    collection = find_collection(run_dir)
    tasks, _ = load_tasks(run_dir / "data", collection.task_paths)
    sample = read_trajectories(collection.groups["expert"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, busy = time.monotonic(), time.process_time()
    groups = {"expert": multiplied(sample, number, steps)}
    write_page(page, groups, tasks, collection.rules, "sample", BlobStore(run_dir / "blobs"))
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - busy, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mb": round(before / 1024),
        "page_mb": round(page.stat().st_size / 1e6, 1),
    }


def use(browser: Browser, page_path: Path, number: int, seed: int) -> dict[str, float]:
    """Return milliseconds of opening and using the page once; `<name>_cpu_ms` are of CPU time."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    try:
        page.goto(page_path.as_uri())
        page.wait_for_function("performance.getEntriesByName('listed').length")

        def cpu() -> float:
            metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            return 1000 * metrics["TaskDuration"]

        def took(selector: str, enough: str, **act: Any) -> tuple[float, float]:
            before = cpu()
            clock = page.evaluate(UNTIL_CHANGED, [selector, act, enough])
            return clock, cpu() - before

        found = {
            "listed_ms": page.evaluate("performance.getEntriesByName('listed')[0].startTime"),
            "loaded_ms": page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"),
            "loaded_cpu_ms": cpu(),
            "list_elements": page.locator("*").count(),
            "heap_mb": page.evaluate("performance.memory.usedJSHeapSize") / 1e6,
        }
        base = page.locator("[data-row='0'] .id").inner_text().rsplit("-", 1)[0]
        found["task_filter_ms"], found["task_filter_cpu_ms"] = took("#summary", " of ", set={"task": "1"})
        by_words = took("#summary", " of ", set={"task": "", "query": base})
        found["words_filter_ms"], found["words_filter_cpu_ms"] = by_words
        took("#summary", f"{number:,} of", set={"query": ""})
        opened = []
        for index in range(NUM_OPENED):
            row = (number * (2 * index + 1) // (2 * NUM_OPENED) + seed) % number
            page.evaluate(f"document.getElementById('list').scrollTop = {row} * 52")
            page.wait_for_selector(f"[data-row='{row}']")
            name = page.locator(f"[data-row='{row}'] .id").inner_text()
            opened.append(took("#detail", name, hash=f"#{name}/1"))
        found["open_ms"], found["open_cpu_ms"] = (statistics.median(each) for each in zip(*opened, strict=True))
        found["open_slowest_ms"], found["open_slowest_cpu_ms"] = (max(each) for each in zip(*opened, strict=True))
        nothing = {"everywhere": True, "query": "words that nobody wrote"}
        found["texts_search_ms"], found["texts_search_cpu_ms"] = took("#summary", r"^((?!searching).)*$", set=nothing)
        return found
    finally:
        page.close()


def measure(run_dir: Path, number: int, steps: int, rounds: int) -> dict[str, Any]:
    """Return all figures of a page of `number` trajectories."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        command = [sys.executable, "-m", "benchmarks.viewer", str(run_dir), "--write", str(page)]
        command += ["--number", str(number), "--steps", str(steps)]
        written = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        uses, version = [], ""
        for index in range(rounds):
            with open_browser() as browser:
                version = browser.version
                uses.append(use(browser, page, number, index))
    sample = read_trajectories(find_collection(run_dir).groups["expert"])
    size = sum(len(json_line(to_record(one)).encode()) for one in multiplied(sample, min(number, 1000), steps))
    medians = {name: round(statistics.median(each[name] for each in uses), 1) for name in uses[0]}
    return {
        "number": number,
        "steps": steps,
        "records_mb": round(size * number / min(number, 1000) / 1e6),
        "write": written,
        "browser": {"name": f"Chromium {version}", "rounds": rounds, **medians},
    }


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a table."""
    rows: list[list[object]] = [["", *(f"{one['number']:,} trajectories" for one in results)]]

    def row(title: str, figure: Any) -> None:
        rows.append([title, *(figure(one) for one in results)])

    row("steps each", lambda one: one["steps"])
    row("as JSON records", lambda one: f"{one['records_mb']:,} MB")
    row("the page", lambda one: f"{one['write']['page_mb']:,} MB")
    row("to write it", lambda one: f"{one['write']['seconds']} s ({one['write']['cpu_seconds']} s of CPU)")
    row("memory while writing, peak", lambda one: f"{one['write']['peak_mb']} MB")
    row("before writing, the sample loaded", lambda one: f"{one['write']['before_mb']} MB")
    row("until the list is there", lambda one: f"{one['browser']['listed_ms']:,.0f} ms")
    for name, title in (
        ("loaded", "until all of the file is read"),
        ("task_filter", "filter by task"),
        ("words_filter", "filter by words, with 120 ms of rest after the last key"),
        ("open", "open a trajectory, median of places"),
        ("open_slowest", "the slowest of them"),
        ("texts_search", "search of all texts"),
    ):
        row(title, lambda one, name=name: _clock_and_cpu(one["browser"], name))
    row("elements of the page with its list", lambda one: f"{one['browser']['list_elements']:.0f}")
    row("JavaScript heap", lambda one: f"{one['browser']['heap_mb']:.0f} MB")
    return table(rows)


def _clock_and_cpu(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[f'{name}_ms']:,.0f} ms ({figures[f'{name}_cpu_ms']:,.0f} ms of CPU)"


def main() -> None:
    """Measure a small page and the large one, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=user_path)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/viewer"))
    parser.add_argument("--write", type=user_path, help="only write the page to this path")
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write(options.run, options.write, options.number, options.steps)))
        return
    numbers = sorted({min(500, options.number), options.number})
    results = [measure(options.run, number, options.steps, options.rounds) for number in numbers]
    load, cores = float(Path("/proc/loadavg").read_text().split()[1]), machine()["cores"]
    browser = results[-1]["browser"]["name"]
    heading = f"# The page of trajectories\n\n{browser} without a GPU, opened from a file; medians of {options.rounds} "
    heading += "openings, each in a new browser."
    if load > cores:
        heading += f" The machine was busy: {load:.0f} processes wanted its {cores} cores, so the clock says more than "
        heading += "it takes alone; the CPU time is that of the page's main thread."
    result = {"commit": commit(), "machine": machine(), "load": load, "pages": results}
    write_results(options.results, "viewer", result, f"{heading}\n\n{to_markdown(results)}")


if __name__ == "__main__":
    main()
