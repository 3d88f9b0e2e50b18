"""Hold the place of a policy server whose weights do not exist yet.

A run checks at its start that its server is there, although a policy from scratch is written only by the fine-tuning.
Until then this answers at the server's address: it is not healthy, and says which directory it waits for.
"""

import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rollout.inference.access import authorization
from rollout.inference.description import PATH, ServerDescription
from rollout.inference.gateway import REFUSED

POLL_SECONDS = 1.0


def wait_until(is_there: Callable[[], bool], description: ServerDescription, host: str, port: int, key: str) -> None:
    """Answer for a server until its weights are there; then its port is free.

    Args:
        is_there: A function that returns whether the weights are complete.
        description: The description of the future server, with the directory that it waits for.
        host: The address to listen at.
        port: The port.
        key: The server's key; empty for none.
    """
    with _answering(description, host, port, key):
        while not is_there():
            time.sleep(POLL_SECONDS)


@contextmanager
def _answering(description: ServerDescription, host: str, port: int, key: str) -> Iterator[None]:
    expected = authorization(key).get("Authorization", "")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer the description to requests with the key, and to all others that nothing is served yet."""
            if self.path == "/health":
                self._answer(503, {"error": f"waiting for {description.waits_for}"})
            elif not hmac.compare_digest(self.headers.get("Authorization", "").encode(), expected.encode()):
                self._answer(401, {"error": REFUSED})
            elif self.path == PATH:
                self._answer(200, description.to_json())
            else:
                self._answer(503, {"error": f"waiting for {description.waits_for}"})

        do_POST = do_GET

        def _answer(self, status: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing, because a waiting run asks every half second."""

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
