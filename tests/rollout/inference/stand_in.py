"""A stand-in for vLLM's server, started in its place by the real supervisor: it starts at once and dies on command.

Its log-probabilities depend on the bytes of the weights, its samples on weights, prompt and seed. It dies, as by a
segmentation fault, at the next request of a kind whose name is a file in the folder `VLLM_STAND_IN_FAULTS`; the content
of the file is how often.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = Path(os.environ["VLLM_STAND_IN_FAULTS"])
DYING = threading.Lock()


class State:
    """The served weights and their version."""

    weights, version, root = "", "default", ""

    def load(self, files: list[Path]) -> None:
        content = b"".join(file.read_bytes() for file in sorted(files))
        self.weights = hashlib.sha256(content).hexdigest()


STATE = State()


def logprob(*parts: object) -> float:
    drawn = hashlib.sha256(repr((STATE.weights, *parts)).encode()).digest()
    return -int.from_bytes(drawn[:4], "big") / 2**30


def die_if_told(kind: str) -> None:
    order = FAULTS / kind
    with DYING:  # the other requests get no answer, or a later order would be taken for this one
        if order.exists():
            left = int(order.read_text()) - 1
            order.write_text(str(left)) if left else order.unlink()
            print(f"RuntimeError: told to die at {kind}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


def generate(body: dict[str, Any]) -> dict[str, Any]:
    prompt, sampling = body["token_ids"], body["sampling_params"]
    assert all(isinstance(token, int) for token in prompt), "hangs up without an answer, and goes on"
    if "prompt_logprobs" in sampling:
        scored = [{str(token): {"logprob": logprob(prompt[:i], token)}} for i, token in enumerate(prompt)]
        return {"prompt_logprobs": scored}
    choices = []
    for k in range(sampling["n"]):
        tokens = [int(-1000 * logprob(prompt, sampling["seed"], k, i)) % 500 for i in range(sampling["max_tokens"])]
        content = [{"token_id": token, "logprob": logprob(prompt, tokens[:i], token)} for i, token in enumerate(tokens)]
        choices.append(
            {
                "index": k,
                "token_ids": tokens,
                "finish_reason": "length",
                "logprobs": {"content": content},
                "weight_versions": [{"version": STATE.version}],
            }
        )
    return {"choices": choices}


def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
    if path == "/v1/models":
        return {"data": [{"root": STATE.root}]}
    if path.startswith("/get_world_size"):
        return {"world_size": 1}
    if path == "/weight_info":
        return {"weight_version": STATE.version}
    if path == "/inference/v1/generate":
        die_if_told("generate")
        return generate(body)
    if path == "/collective_rpc":
        (probe,) = map(Path, body["args"])
        sees = probe.exists() and not (FAULTS / "blind").exists()
        return {"results": [probe.read_text() if sees else ""]}
    if path == "/update_weights":
        die_if_told("update_weights")
        STATE.load([Path(file) for file in body["update_info"]["paths"]])
        with (FAULTS / "given").open("a") as record:
            record.write(json.dumps(body["update_info"]) + "\n")
    if path == "/finish_weight_update":
        STATE.version = body["weight_version"]
    if path == "/update_weight_version":
        STATE.version = body["new_version"]
    return {"success": True}


class Handler(BaseHTTPRequestHandler):
    def _reply(self, body: dict[str, Any]) -> None:
        sent = json.dumps(answer(self.path.partition("?")[0], body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}"))

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--port", type=int)
    parsed, _ = parser.parse_known_args()
    die_if_told("start")
    STATE.root = str(parsed.model)
    STATE.load(list(parsed.model.glob("*.safetensors")))
    ThreadingHTTPServer(("127.0.0.1", parsed.port), Handler).serve_forever()
