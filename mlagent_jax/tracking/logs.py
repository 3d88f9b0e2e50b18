"""The log of a run: everything in log.txt, and the lines that a user needs on the console."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tasks.quoting import one_line

PACKAGES = ("mlagent_jax", "rollout", "tasks")

logger = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a line that cannot be written; a full disk is reported by the code that writes outputs."""


class _Lines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message on one line, whatever names it holds; a traceback follows on lines of its own."""
        return one_line(super().formatMessage(record))


class _ConsoleLog(logging.Handler):
    def __init__(self, console: Console) -> None:
        # A terminal also shows the progress bars and the reporter's notes.
        super().__init__(logging.WARNING if console.is_terminal else logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record above the progress bars, if there are any."""
        self.console.print(escape(self.format(record)), soft_wrap=True, highlight=False)


@contextmanager
def logging_to(path: Path, console: Console) -> Iterator[None]:
    """Log our packages to `path` and their warnings to `console`, and log an error that ends the block.

    If the console is not a terminal, it has no progress bars and also gets informational lines.
    """
    to_file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_console = _ConsoleLog(console)
    to_console.setFormatter(_Lines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    ours = [logging.getLogger(name) for name in PACKAGES]
    levels = [log.level for log in ours]
    for log in ours:
        log.setLevel(logging.DEBUG)
        log.propagate = False  # libraries put handlers of their own on the root logger
        log.addHandler(to_file)
        log.addHandler(to_console)
    try:
        yield
    except BaseException:
        logger.debug("the run ended early", exc_info=True)
        raise
    finally:
        for log, level in zip(ours, levels, strict=True):
            log.setLevel(level)
            log.propagate = True
            log.removeHandler(to_file)
            log.removeHandler(to_console)
        to_file.close()
