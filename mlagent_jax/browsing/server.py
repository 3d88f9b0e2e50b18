"""A read-only web server of the runs below a folder."""

import ipaddress
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlagent_jax.browsing.listing import find_runs, list_runs, name_of
from mlagent_jax.browsing.series import RunSeries

HERE = Path(__file__).parent
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
STATIC = {
    "/": (HERE / "page.html", "text/html; charset=utf-8"),
    "/page.css": (HERE.parent / "reporting" / "page.css", "text/css; charset=utf-8"),
    "/runs.css": (HERE / "runs.css", "text/css; charset=utf-8"),
    "/chart.js": (HERE / "chart.js", "text/javascript; charset=utf-8"),
    "/runs.js": (HERE / "runs.js", "text/javascript; charset=utf-8"),
}
PAGES = ("report.html", "trajectories.html", "ideas.html")  # of a run; they bring their own policy

log = logging.getLogger(__name__)


class RunsServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it. It only reads, and answers only requests for its own address."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int) -> None:
        """Listen on an address; raises OSError if that is not possible."""
        self.folder, self.host = folder, host
        self._series: dict[str, RunSeries] = {}
        super().__init__((host, port), Handler)

    def runs(self) -> list[dict[str, Any]]:
        """Return what is known about every run, the newest first."""
        return [{key: value for key, value in asdict(run).items() if key != "root"} for run in list_runs(self.folder)]

    def root(self, name: str) -> Path | None:
        """Return the directory of the run of a name, None if there is none."""
        return next((root for root in find_runs(self.folder) if name_of(root, self.folder) == name), None)

    def series(self, name: str) -> RunSeries | None:
        """Return the figures of a run, None if there is none of that name."""
        if name not in self._series:
            root = self.root(name)
            if root is None:
                return None
            self._series[name] = RunSeries(root / "metrics.jsonl")
        return self._series[name]

    def server_close(self) -> None:
        """Stop listening, and close the files."""
        super().server_close()
        for series in self._series.values():
            series.close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    @property
    def runs(self) -> RunsServer:
        """The server."""
        assert isinstance(self.server, RunsServer), "it makes these handlers"
        return self.server

    def do_GET(self) -> None:  # noqa: N802 (the name that http.server calls)
        """Answer a request for a page, a list or figures."""
        if not self._is_for_us():
            self._answer(HTTPStatus.FORBIDDEN, b"this server answers at its own address only", "text/plain")
            return
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            if parts.path in STATIC:
                file, kind = STATIC[parts.path]
                self._answer(HTTPStatus.OK, file.read_bytes(), kind)
            elif parts.path == "/page":
                self._page(query)
            elif parts.path.startswith("/api/"):
                self._json(self._api(parts.path.removeprefix("/api/"), query))
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
        except BrokenPipeError:
            pass

    def _api(self, what: str, query: Mapping[str, str]) -> Any:
        """Return the answer to a request of the page, None if there is nothing of that name."""
        if what == "runs":
            return self.runs.runs()
        series = self.runs.series(query.get("run", ""))
        if series is None:
            return None
        if what == "names":
            return series.names()
        if what == "points":
            return series.points(query.get("name", ""), _number(query, "version"), _number(query, "from"))
        return None

    def _page(self, query: Mapping[str, str]) -> None:
        """Send a page of a run."""
        root, name = self.runs.root(query.get("run", "")), query.get("name", "")
        if root is None or name not in PAGES or not (root / name).is_file():
            self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
            return
        self._answer(HTTPStatus.OK, (root / name).read_bytes(), "text/html; charset=utf-8", policy=None)

    def _is_for_us(self) -> bool:
        """Return whether the request names our address; a page elsewhere could lead a browser here by another name."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if name in ("localhost", self.runs.host):
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _json(self, value: Any) -> None:
        status = HTTPStatus.NOT_FOUND if value is None else HTTPStatus.OK
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, policy: str | None = CSP) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log a request, which is not for the console."""
        log.debug(format, *args)


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    return int(text) if text.isdecimal() else 0
