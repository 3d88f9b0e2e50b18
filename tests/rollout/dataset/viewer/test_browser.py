"""The page in a real browser, opened from its file: every filter, every key, and nothing of an agent's that runs."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from benchmarks.browser import find_browser, open_browser
from rollout.dataset.viewer import write_page
from rollout.types import Trajectory
from tasks.feedback import Outcome
from tasks.reward import PAPER, reward

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine; `make browser` installs one"),
]
SHOWN_IDS = """async () => {
    const list = document.getElementById("list"), ids = new Map();
    for (let top = 0; ; top += 600) {
        if (list.scrollTop !== top) {
            list.scrollTop = top;
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }
        for (const row of list.querySelectorAll(".row")) {
            ids.set(Number(row.style.top.replace("px", "")), row.dataset.row);
        }
        if (top + list.clientHeight >= list.scrollHeight) break;
    }
    list.scrollTop = 0;
    return [...ids].sort((a, b) => a[0] - b[0]).map(([, row]) => Number(row));
}"""


@dataclass
class ExecutorHandle:
    """A page in a browser, and what it asked the network for."""

    page: Page
    address: str
    trajectories: list[tuple[str, Trajectory]]  # by group, in the page's order
    tasks: dict[str, Any]
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def go(self, fragment: str = "") -> None:
        """Open the page again."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}{fragment}")
        self.page.wait_for_selector("#summary b")

    def rows(self) -> list[int]:
        """The rows that the list shows, top to bottom."""
        return self.page.evaluate(SHOWN_IDS)

    def where(self, fits: Callable[[str, Trajectory], bool]) -> list[int]:
        """The rows of the trajectories that fit."""
        return [row for row, (group, one) in enumerate(self.trajectories) if fits(group, one)]

    def gain(self, row: int) -> float:
        """The gain of a trajectory."""
        one = self.trajectories[row][1]
        task = self.tasks[one.task]
        return task.gain(one.score(task.m_init))

    def row_of(self, name: str) -> int:
        """The row of one of the expert's trajectories."""
        return self.where(lambda group, one: group == "expert" and one.trajectory_id == name)[0]

    def settle(self) -> None:
        """Waits until the address has followed."""
        self.page.wait_for_timeout(400)


@pytest.fixture
def opened(collection: Any, tmp_path: Path) -> Iterator[Callable[..., ExecutorHandle]]:
    """Opens the page of the collection, or another, in a window of a size; afterwards it must have been quiet."""
    with ExitStack() as stack:
        pages: list[ExecutorHandle] = []
        browser = None

        def open_page(
            path: Path | None = None, fragment: str = "", width: int = 1400, height: int = 900, **settings: Any
        ) -> ExecutorHandle:
            nonlocal browser
            path = path or collection.write(tmp_path / "page.html", store=collection.store)
            browser = browser or stack.enter_context(open_browser())
            context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **settings)
            page = context.new_page()
            page.set_default_timeout(20_000)
            trajectories = [(group, one) for group, many in collection.groups.items() for one in many]
            found = ExecutorHandle(page, path.as_uri(), trajectories, collection.tasks)
            page.on("request", lambda request: found.requests.append(request.url))
            page.on("pageerror", lambda error: found.faults.append(str(error)))
            page.on("console", lambda message: found.faults.append(message.text))
            found.go(fragment)
            pages.append(found)
            return found

        yield open_page
        for each in pages:
            assert each.faults == []
            assert {url.split("#")[0] for url in each.requests} <= {each.address, "about:blank"}


def test_list_shows_all_with_few_elements(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened()
    assert "41 of 41 trajectories" in site.page.inner_text("#summary")
    assert site.page.locator(".row").count() < 41
    assert site.rows() == list(range(41))
    gains = [site.gain(row) for row in range(41)]
    assert f"mean gain {sum(gains) / 41:+.3f}" in site.page.inner_text("#summary")
    first = site.page.locator("[data-row='2']").inner_text()
    assert all(words in first for words in ("a-002", "cedar image", "Idea number 2.", "0.6000", "+0.200"))


def test_every_filter_leaves_what_fits(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(height=2400)  # room for all rows at once
    page = site.page

    def outcomes(one: Trajectory) -> set[Outcome]:
        return {step.feedback.outcome for step in one.steps}

    def texts(one: Trajectory) -> str:
        return "\n".join(step.response + step.feedback.text for step in one.steps)

    cases: list[tuple[dict[str, str], Callable[[str, Trajectory], bool]]] = [
        ({"query": "NUMBER 3"}, lambda _, one: any("number 3" in idea for idea in one.ideas)),
        ({"query": "birch_sound"}, lambda _, one: one.task == "birch_sound"),
        ({"query": "a-01"}, lambda _, one: "a-01" in one.trajectory_id),
        ({"group": "ppo"}, lambda group, one: group == "ppo"),
        ({"task": "cedar_image"}, lambda _, one: one.task == "cedar_image"),
        ({"end": "step_limit"}, lambda _, one: one.end == "step_limit"),
        *(({"outcome": kind}, lambda _, one, kind=kind: kind in outcomes(one)) for kind in Outcome if kind in KINDS),
        ({"low": "0.4"}, lambda _, one: site.tasks[one.task].gain(one.score(0.5)) >= 0.4),
        ({"high": "-0.1"}, lambda _, one: site.tasks[one.task].gain(one.score(0.5)) <= -0.1),
        ({"group": "expert", "task": "amber_price", "low": "0.2"}, lambda group, one: combined(site, group, one)),
        ({"everywhere": "on", "query": "no such COLUMN"}, lambda _, one: "no such column" in texts(one)),
        ({"everywhere": "on", "query": '{"dir_path": "."}'}, lambda _, one: '{"dir_path": "."}' in texts(one)),
        ({"query": "nothing has these words"}, lambda _, one: False),
    ]
    for settings, fits in cases:
        for name, value in settings.items():
            element = page.locator(f"[name={name}]")
            if name == "everywhere":
                element.check()
            elif name in ("query", "low", "high"):
                element.fill(value)
            else:
                options = element.locator("option").all()
                numbers = {option.inner_text().split(" (")[0]: option.get_attribute("value") for option in options}
                element.select_option(numbers.get(value, value))
        wanted = site.where(fits)
        expect(page.locator("#summary")).to_contain_text(re.compile(rf"(?<!\d){len(wanted)} of 41 trajectories"))
        assert site.rows() == wanted, settings
        page.click("button[type=reset]")
        expect(page.locator("#summary")).to_contain_text("41 of 41")
    assert len(cases) == 18


KINDS = set(Outcome) - {Outcome.INFRASTRUCTURE}


def combined(site: ExecutorHandle, group: str, one: Trajectory) -> bool:
    return group == "expert" and one.task == "amber_price" and site.tasks[one.task].gain(one.score(0.5)) >= 0.2


def test_every_column_sorts_both_ways(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(height=2400)  # room for all rows at once
    failures = {Outcome.INVALID, Outcome.ERROR, Outcome.NOT_EDITED, Outcome.CORNER}

    def failed(row: int) -> int:
        return sum(step.feedback.outcome in failures for step in site.trajectories[row][1].steps)

    keys: dict[str, Callable[[int], Any]] = {
        "task": lambda row: site.trajectories[row][1].task,
        "end": lambda row: site.trajectories[row][1].end,
        "steps": lambda row: len(site.trajectories[row][1].steps),
        "failed": failed,
        "score": lambda row: site.trajectories[row][1].score(0.5),
        "gain": lambda row: round(site.gain(row), 9),
        "order": lambda row: row,
    }
    for name, key in keys.items():
        ways = []
        for _ in range(2):
            site.page.click(f"[data-sort={name}]")
            rows = site.rows()
            assert sorted(rows) == list(range(41))
            values = [key(row) for row in rows]
            ways.append("up" if values == sorted(values) else "down" if values == sorted(values)[::-1] else values)
        assert sorted(ways) == ["down", "up"], name


def test_keys_step_through_trajectories_and_steps(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened()
    page = site.page
    page.keyboard.press("j")
    expect(page.locator(".title .id")).to_have_text("a-000")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    expect(page.locator(".title .id")).to_have_text("a-002")
    page.keyboard.press("k")
    expect(page.locator(".row[aria-selected=true] .id")).to_have_text("a-001")
    expect(page.locator(".step[aria-selected=true]")).to_contain_text("1 list")
    for key, number in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 3), ("ArrowLeft", 2)):
        page.keyboard.press(key)
        expect(page.locator(".step[aria-selected=true]")).to_have_attribute("data-step", str(number))
    page.keyboard.press("/")
    page.keyboard.type("jjj")
    assert page.input_value("[name=query]") == "jjj"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("table.overview")).to_have_count(1)


def test_step_shows_what_is_recorded_of_it(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened()
    row = site.row_of("slow")
    site.go("#expert/slow/4")
    trajectory = site.trajectories[row][1]
    step, task = trajectory.steps[3], site.tasks["birch_sound"]
    text = site.page.inner_text("#detail")
    earned = reward(task, step.feedback, step.before.metric, PAPER)
    for words in ("birch sound", "edit ran", "0.9000 → 0.6000", f"{earned:.3f}".replace("-", "−"), "(0.6 − 0.9)"):
        assert words in text
    site.page.click("text=Problem and names")
    assert trajectory.problem.split("\n")[0] in site.page.inner_text("#detail")
    table = site.page.locator(".action table").inner_text()
    assert "elm_6.py" in table and "cedar.py" in table and "validation" in table
    assert site.page.locator("pre.feedback").inner_text() == step.feedback.text
    site.page.click("text=Raw response")
    assert site.page.locator("pre.raw").inner_text() == step.response
    levels = site.page.locator(".chart text.level").all_text_contents()
    assert levels == ["initial 0.5000", "best 1.0000"]
    assert site.page.locator(".chart .place").count() == len(trajectory.steps)
    site.page.locator(".chart .place").nth(1).click()
    expect(site.page.locator(".step[aria-selected=true]")).to_have_attribute("data-step", "2")


def test_edits_are_coloured(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(fragment="#expert/a-002/2")
    background = "element => getComputedStyle(element).backgroundColor"
    added, removed = site.page.locator(".feedback .added"), site.page.locator(".feedback .removed")
    assert added.all_inner_texts() == ["+correct = 6", "+validation = 0.6"]
    assert removed.all_inner_texts() == ["-correct = 5", "-validation = 0.5"]
    colours = {each.first.evaluate(background) for each in (added, removed, site.page.locator(".feedback .status"))}
    assert len(colours) == 3
    site.page.click("text=Whole diff")
    whole = site.page.locator("pre.diff")
    assert ' train = "birch_train.csv"' in whole.inner_text() and whole.locator(".hunk").count() == 1
    assert whole.locator(".added").all_inner_texts() == ["+correct = 6", "+validation = 0.6"]


def test_response_that_is_no_action_is_shown_raw_with_the_reason(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(fragment="#expert/invalid/1")
    assert "the field 'Reflection:' is missing" in site.page.inner_text("p.fault")
    assert site.page.inner_text("pre.raw") == "I would rather not."
    assert "not an action" in site.page.inner_text(".case")


def test_address_is_a_permalink_and_history_goes_back(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(fragment="#expert/slow/3")
    page = site.page

    def shows(name: str, step: int) -> None:
        expect(page.locator(".title .id")).to_have_text(name)
        expect(page.locator(".step[aria-selected=true]")).to_have_attribute("data-step", str(step))

    shows("slow", 3)
    page.keyboard.press("j")
    shows("invalid", 1)
    site.settle()
    assert page.evaluate("location.hash") == "#expert/invalid/1"
    page.keyboard.press("ArrowRight")
    site.settle()
    assert page.evaluate("location.hash") == "#expert/invalid/2"
    page.reload()
    shows("invalid", 2)
    page.go_back()
    shows("slow", 3)
    page.go_forward()
    shows("invalid", 2)
    page.evaluate("location.hash = '#ppo/a-001/2'")
    shows("a-001", 2)
    expect(page.locator(".title .badge").first).to_have_text("ppo")
    assert page.locator(".title .id").get_attribute("href") == "#ppo/a-001/2"
    page.evaluate("location.hash = '#expert/no-such/1'")
    expect(page.locator("table.overview")).to_have_count(1)
    page.evaluate("location.hash = '#%E0%A4%A'")
    expect(page.locator("table.overview")).to_have_count(1)


def test_hostile_text_is_text(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened()
    page = site.page
    row = site.row_of("hostile <img src=x onerror='window.hacked = 4'>/é")
    page.fill("[name=query]", "hostile")
    page.click(f"[data-row='{row}']")
    for number in range(1, 5):
        expect(page.locator(".step[aria-selected=true]")).to_have_attribute("data-step", str(number))
        page.keyboard.press("ArrowRight")
        assert page.evaluate("typeof window.hacked") == "undefined"
        assert page.locator("img").count() == 0 and page.locator("svg:not(.chart)").count() == 0
    page.keyboard.press("ArrowLeft")
    site.settle()
    page.reload()  # the id is in the address
    expect(page.locator(".step[aria-selected=true]")).to_have_attribute("data-step", "3")
    assert page.inner_text(".title .id") == "hostile <img src=x onerror='window.hacked = 4'>/é"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    raw = page.inner_text("pre.raw")
    for words in (
        "</script><script>window.hacked = 1</script>",
        "<img src=x onerror",
        "␛[31mred␀",
        "{{ 7 * 7 }}",
        "🦉",
    ):
        assert words in raw
    assert "\\u2028" in raw and "\\u202egnp.exe" in raw  # what does not show, or turns the text round, is spelt
    assert page.evaluate("typeof window.hacked") == "undefined"


def test_markup_would_not_run_if_it_got_into_the_page(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened()
    page = site.page
    page.evaluate("document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='window.hacked = 1'>`)")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 2'}))")
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert site.faults and all("Content Security Policy" in fault for fault in site.faults)
    site.faults.clear()
    site.requests.remove(site.address.replace("page.html", "x"))  # asked for, and refused


def test_ten_thousand_stay_quick(opened: Callable[..., ExecutorHandle], collection: Any, tmp_path: Path) -> None:
    some = collection.groups["expert"]

    def many() -> Iterator[Trajectory]:
        for number in range(10_000):
            yield replace(some[number % len(some)], trajectory_id=f"n-{number:05d}")

    write_page(tmp_path / "many.html", {"expert": many()}, collection.tasks, PAPER, "many")
    site = opened(tmp_path / "many.html")
    page = site.page
    assert page.evaluate("performance.getEntriesByName('listed')[0].startTime") < 10_000  # since it was asked for
    assert "10,000 of 10,000 trajectories" in page.inner_text("#summary")
    assert page.locator(".row").count() < 60 and page.locator("*").count() < 1_500
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    expect(page.locator("[data-row='9999']")).to_be_visible()
    assert page.locator(".row").count() < 60
    page.fill("[name=query]", "n-0777")
    expect(page.locator("#summary")).to_contain_text("10 of 10,000")
    page.click("[data-row='7773']")
    expect(page.locator(".title .id")).to_have_text("n-07773")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_scheme(opened: Callable[..., ExecutorHandle], scheme: str) -> None:
    site = opened(fragment="#expert/slow/4", color_scheme=scheme)
    lightness = "kind => getComputedStyle(document.body)[kind].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    background, ink = (site.page.evaluate(lightness, kind) for kind in ("backgroundColor", "color"))
    assert (background > ink) == (scheme == "light")


def test_narrow_window_shows_the_list_or_what_is_open(opened: Callable[..., ExecutorHandle]) -> None:
    site = opened(width=400)
    page = site.page
    expect(page.locator("#side")).to_be_visible()
    expect(page.locator("#detail")).to_be_hidden()
    page.click("[data-row='2']")
    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator(".title .id")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.click("text=← List")
    expect(page.locator("[data-row='2']")).to_be_visible()
