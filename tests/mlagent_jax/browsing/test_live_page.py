"""The page of runs in a real browser: it follows a run, lays runs over one another, and stays smooth."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.browser import find_browser, open_browser
from mlagent_jax.browsing.server import RunsServer
from mlagent_jax.configuration.loading import load_config, to_yaml
from mlagent_jax.tracking.jsonl import JsonlTracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine; `make browser` installs one"),
]
NUM_ROWS = 10_000
SMOOTH_MS = 100  # of drawing, on a slow machine
DRAWN = "(name) => { const {chart} = charts.get(name); return chart.lines.map((line) => [line.name, line.x.length]); }"
DRAW_MS = "() => { const began = performance.now(); draw(wantedFigures()); return performance.now() - began; }"


def write_run(root: Path, updates: int) -> Path:
    (root / "stages").mkdir(parents=True)
    (root / "config.yaml").write_text(to_yaml(load_config()))
    with JsonlTracker(root / "metrics.jsonl") as tracker:
        for update in range(updates):
            tracker.log({"ppo/update": update, "reward/mean": update % 7, "ppo/entropy": 1 / (update + 1)})
    return root


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """The page of the runs in `tmp_path`, on which no script fails."""
    with ExitStack() as stack:
        server = stack.enter_context(RunsServer(tmp_path, "127.0.0.1", 0))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        made = stack.enter_context(open_browser()).new_page(viewport={"width": 1200, "height": 900})
        faults: list[str] = []
        made.on("pageerror", lambda error: faults.append(str(error)))
        made.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        made.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        yield made
        assert faults == []


def test_the_page_follows_runs_that_begin_and_go_on(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#status")).to_have_text("There is no run yet")
    root = write_run(tmp_path / "<b>bold", 3)
    expect(page.locator("#runs tbody tr")).to_have_count(1, timeout=10_000)
    expect(page.locator("#runs .name")).to_have_text("<b>bold")  # names are text
    expect(page.locator("#charts section h2").first).to_have_text("reward/mean")
    with JsonlTracker(root / "metrics.jsonl") as tracker:
        tracker.log({"ppo/update": 3, "reward/mean": 2.0})
    page.wait_for_function(f"() => ({DRAWN})('reward/mean')[0][1] === 4", timeout=10_000)


def test_runs_lie_over_one_another_and_figures_are_filtered(page: Page, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, 5)
    expect(page.locator("#runs tbody tr")).to_have_count(2, timeout=10_000)
    page.get_by_label("show one").check()
    page.get_by_label("show two").check()
    page.wait_for_function(f"() => ({DRAWN})('reward/mean').length === 2", timeout=10_000)
    page.locator("#filter").fill("entropy")
    expect(page.locator("#charts section")).to_have_count(1)
    page.locator("#axis").select_option("seconds")
    page.locator("#smooth").check()
    page.locator("canvas").hover(position={"x": 300, "y": 80})
    expect(page.locator(".reading")).to_contain_text("one")
    page.locator("#filter").fill("no such figure")
    expect(page.locator("#empty")).to_have_text("No figure of the chosen runs has this name.")


def test_ten_thousand_rows_stay_smooth(page: Page, tmp_path: Path) -> None:
    root = write_run(tmp_path / "long", NUM_ROWS)
    page.wait_for_function(
        f"() => charts.has('ppo/entropy') && ({DRAWN})('reward/mean')[0]?.[1] === {NUM_ROWS}", timeout=30_000
    )
    page.evaluate(DRAW_MS)
    assert page.evaluate(DRAW_MS) < SMOOTH_MS
    with page.expect_response(lambda answer: "points" in answer.url) as caught:
        with JsonlTracker(root / "metrics.jsonl") as tracker:
            tracker.log({"ppo/update": NUM_ROWS, "reward/mean": 1.0, "ppo/entropy": 0.0})
    assert caught.value.ok
    page.wait_for_function(f"() => ({DRAWN})('reward/mean')[0][1] === {NUM_ROWS + 1}", timeout=10_000)
