"""Progress of a run: live bars in a terminal, rate-limited plain lines elsewhere, and always log.txt."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tasks.quoting import one_line

LINE_EVERY_SECONDS = 15.0

logger = logging.getLogger(__name__)


class Bar:
    """The progress of one piece of work, made by `Reporter.bar`."""

    def __init__(self, label: str, total: int, done: int | None, live: tuple[Progress, TaskID] | None) -> None:
        self.label = label
        self.total = total
        self.done = done or 0
        self._live = live
        self._first = done
        self._began = time.monotonic()
        self._last_line = -LINE_EVERY_SECONDS
        self._figures: dict[str, float] = {}

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Show that `done` of the total are finished, with the latest figures; figures that are not given stay."""
        if self._first is None:
            self._first, self._began = done, time.monotonic()
        self.done = done
        self._figures.update(figures or {})
        text = " · ".join(f"{name} {figure_text(value)}" for name, value in self._figures.items())
        left = self.seconds_left()
        if left is not None:
            text += f"{' · ' if text else ''}{duration_text(left)} left"
        if self._live is not None:
            progress, task = self._live
            progress.update(task, completed=done, text=escape(text))
        now = time.monotonic()
        if done >= self.total or now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            logger.info("%s %d/%d%s", self.label, done, self.total, f" · {text}" if text else "")

    def seconds_left(self) -> float | None:
        """Return the estimated seconds for the remaining work, None before there is a rate and at the end."""
        paced = self.done - (self._first or 0)
        if paced <= 0 or self.done >= self.total:
            return None
        return (time.monotonic() - self._began) / paced * (self.total - self.done)


class Reporter:
    """The notes and progress bars of the stages."""

    def __init__(self, console: Console | None = None) -> None:
        """Make a reporter on `console`, stderr by default; bars are drawn only if that is a terminal."""
        self.console = console or Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Log one line, and print it in a terminal."""
        text = one_line(text)
        logger.info(text)
        if self.console.is_terminal:
            self.console.print(escape(text), highlight=False)

    @contextmanager
    def bar(self, label: str, total: int, done: int | None = 0) -> Iterator[Bar]:
        """Yield the progress of `total` items, `done` of which were finished before.

        If `done` is None, the first update gives this number.
        """
        if not self.console.is_terminal:
            yield Bar(label, total, done, None)
            return
        columns = (
            TextColumn(f"[bold]{escape(label)}[/bold]"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=total, completed=done or 0, text="")
            yield Bar(label, total, done, (progress, task))


def figure_text(value: float) -> str:
    """Return a number in a readable form, such as 4,412 or 0.263 or 3.0e-04."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def duration_text(seconds: float) -> str:
    """Return a duration as 42 s, 3 min 05 s or 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
