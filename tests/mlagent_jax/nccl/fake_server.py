"""A stand-in for a vLLM server with two replicas, whose workers receive weights by the real engine's code.

    python fake_server.py FOLDER NCCL_LIBRARY

Each worker has a model of transformers on the CPU instead of vLLM's, and joins the trainer's group by vLLM's own
binding of NCCL, with the library of `fake_nccl.c` in its place. `/fault` plants a fault. Prints the address.
"""

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from vllm.distributed.device_communicators.pynccl_wrapper import NCCLLibrary, buffer_type, cudaStream_t

from rollout.inference import worker_extension
from rollout.inference.worker_extension import CheckpointEngine, InitInfo

FOLDER, LIBRARY = sys.argv[1:]
NUM_WORKERS = 2
faults: dict[str, Any] = {"kind": None, "worker": 1}


class Group:
    """A rank of the trainer's group, with the handshake of vLLM's communicator."""

    def __init__(self, init_info: InitInfo, rank: int) -> None:
        import base64

        self.nccl = NCCLLibrary(LIBRARY)
        unique_id = self.nccl.unique_id_from_bytes(base64.b64decode(init_info.nccl_unique_id_b64 or ""))
        self.comm = self.nccl.ncclCommInitRank(init_info.world_size, unique_id, rank)
        one = torch.ones(1)
        pointer = buffer_type(one.data_ptr())
        self.nccl.ncclAllReduce(pointer, pointer, 1, 7, 0, self.comm, cudaStream_t())
        assert one.item() == NUM_WORKERS, "rank 0 gives 0"

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        pointer = buffer_type(tensor.data_ptr())
        self.nccl.ncclBroadcast(buffer_type(), pointer, tensor.numel(), 1, src, self.comm, cudaStream_t())

    def destroy(self) -> None:
        self.nccl.ncclCommAbort(self.comm)


class Worker:
    """One replica of the policy."""

    def __init__(self, number: int) -> None:
        self.number, self.version = number, "default"
        self.model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
        self.engine = CheckpointEngine.__new__(CheckpointEngine)
        self.engine.model, self.engine.device = self, torch.device("cpu")  # pyright: ignore[reportAttributeAccessIssue]
        self.engine.held, self.engine.group = {}, None
        self.engine.parallel_config = number  # pyright: ignore[reportAttributeAccessIssue]

    def has(self, fault: str) -> bool:
        return faults["kind"] == fault and faults["worker"] == self.number

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        if not self.has("stale"):
            own = self.model.state_dict()
            for name, tensor in weights:
                own[name].copy_(tensor)

    def init(self, init_info: dict[str, Any]) -> None:
        self.engine.init_transfer_engine(self.engine.parse_init_info(init_info))

    def update(self, update_info: dict[str, Any]) -> None:
        if self.has("refuses"):
            raise ValueError("refused before anything is received")
        if self.has("damaged"):
            update_info = {**update_info, "checksums": [[a, b ^ 1] for a, b in update_info["checksums"]]}
        self.engine.receive_weights(self.engine.parse_update_info(update_info))

    def logprobs(self, token_ids: list[int]) -> list[Any]:
        with torch.no_grad():
            table = self.model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
        known = [{str(token): {"logprob": table[i, token].item()}} for i, token in enumerate(token_ids[1:])]
        return [None, *known]


worker_extension.join_group = lambda init_info, number: Group(init_info, 1 + number)
workers = [Worker(number) for number in range(NUM_WORKERS)]
pool = ThreadPoolExecutor(NUM_WORKERS)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        path = self.path
        if path == "/v1/models":
            self.answer(200, {"data": [{"root": FOLDER}]})
        elif path == "/weight_info":
            self.answer(200, {"weight_version": workers[0].version})
        else:
            self.answer(200, {"world_size": NUM_WORKERS if path.endswith("true") else 1})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        try:
            self.answer(200, self.result(self.path.partition("?")[0], body))
        except Exception as error:
            self.answer(500, {"error": str(error)})

    def result(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/fault":
            faults.update(body)
        elif path == "/init_weight_transfer_engine":
            list(pool.map(lambda worker: worker.init(body["init_info"]), workers))
        elif path == "/update_weights":
            list(pool.map(lambda worker: worker.update(body["update_info"]), workers))
        elif path == "/finish_weight_update":
            for worker in workers:
                worker.version = body["weight_version"]
        elif path == "/inference/v1/generate":
            worker = workers[int(self.headers["X-data-parallel-rank"])]
            return {"prompt_logprobs": worker.logprobs(body["token_ids"])}
        elif path == "/tensors":
            return [
                {name: tensor.sum().item() for name, tensor in worker.model.state_dict().items()} for worker in workers
            ]
        return {"success": True}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
