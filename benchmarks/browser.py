"""A browser of the machine, for the tests of pages and for what they take."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Nothing of its own that goes to the network, and no sandbox, which root has none of: it opens our own pages only.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def find_browser() -> str | None:
    """Return where the machine's Chromium is, None where it has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Give a browser without windows that ends with the block. Raises FileNotFoundError where there is none."""
    path = find_browser()
    if path is None:
        raise FileNotFoundError("there is no Chromium on this machine; `make browser` installs Debian's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
