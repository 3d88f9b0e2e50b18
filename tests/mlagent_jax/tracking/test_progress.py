"""Progress is a live bar in a terminal and a few plain lines elsewhere."""

import io
import logging
import time
from pathlib import Path

import pytest
from rich.console import Console

from mlagent_jax.tracking import progress
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter, duration_text, figure_text


def output(tmp_path: Path, terminal: bool, num_updates: int = 40) -> tuple[str, str]:
    """Returns what the console and log.txt got from one bar and one note."""
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=140))
    with logging_to(tmp_path / "log.txt", reporter.console):
        reporter.note("starting [ppo]")
        with reporter.bar("ppo", num_updates) as bar:
            for update in range(1, num_updates + 1):
                bar.update(update, {"reward": 0.125, "tokens/s": 4412.3})
    return text.getvalue(), (tmp_path / "log.txt").read_text()


def test_without_a_terminal_first_and_last_lines_are_printed_and_few_between(tmp_path: Path) -> None:
    console, log = output(tmp_path, terminal=False)
    lines = console.splitlines()
    assert lines[0].endswith("starting [ppo]")
    assert "ppo 1/40 · reward 0.125 · tokens/s 4,412" in lines[1] and lines[1].endswith("left")
    assert "ppo 40/40 · reward 0.125" in lines[-1] and "left" not in lines[-1]
    assert len(lines) == 3
    assert "ppo 40/40" in log
    assert "\x1b" not in console


@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_with_line_breaks_stays_on_its_line(tmp_path: Path, terminal: bool) -> None:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=140))
    with logging_to(tmp_path / "log.txt", reporter.console):
        reporter.note("report: runs/a\nb\x1b[2J/report.html")
        logging.getLogger("rollout.test").warning("%s is damaged", "task\r\nERROR forged")
    for shown in (text.getvalue(), (tmp_path / "log.txt").read_text()):
        assert "runs/a\\nb\\x1b[2J/report.html" in shown and "task\\r\\nERROR forged is damaged" in shown
        assert len(shown.splitlines()) == 2


def test_line_is_printed_again_when_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    console, _ = output(tmp_path, terminal=False, num_updates=5)
    assert sum("ppo" in line and "/5" in line for line in console.splitlines()) == 5


def test_in_a_terminal_a_bar_is_drawn_and_log_lines_go_to_the_file(tmp_path: Path) -> None:
    console, log = output(tmp_path, terminal=True)
    assert "40/40" in console and "reward 0.125" in console and "\x1b" in console
    assert console.count("starting [ppo]") == 1
    assert "INFO mlagent_jax.tracking.progress: starting [ppo]" in log


def test_what_was_there_before_is_no_pace() -> None:
    bar = progress.Bar("collect", total=100, done=None, live=None)
    bar.update(90)
    assert bar.seconds_left() is None
    time.sleep(0.01)
    bar.update(91)
    assert (bar.seconds_left() or 0.0) >= 0.09


def test_time_left_is_paced_by_what_this_process_did() -> None:
    bar = progress.Bar("sft", total=100, done=90, live=None)
    assert bar.seconds_left() is None
    bar.update(95)
    left = bar.seconds_left()
    assert left is not None and 0 <= left < 5


@pytest.mark.parametrize(
    ("value", "text"), [(4412.3, "4,412"), (0.26341, "0.263"), (0.0, "0"), (3e-4, "3.0e-04"), (-12.0, "-12"), (7, "7")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert figure_text(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(42.2, "42 s"), (185.0, "3 min 05 s"), (7620.0, "2 h 07 min")])
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
