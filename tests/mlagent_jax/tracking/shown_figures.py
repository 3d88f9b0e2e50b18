"""Read the figures of a run from a tracking service, with the service's own package.

    python shown_figures.py SERVICE RUN_DIR ID

prints a JSON list of [name, step, value], one for each time that the service has a figure. For wandb and Trackio the
step is the number of the line.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK, HEADER = 32768, 7  # of LevelDB's log format, in which wandb writes its files


def tensorboard(run_dir: Path, identifier: str) -> Iterator[tuple[str, int, float]]:
    """Yields what TensorBoard shows: a file that purges from a step hides the earlier files' steps from there on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    for folder in sorted((run_dir / "tensorboard").iterdir()):
        shown: list[tuple[str, int, float]] = []
        for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
            content = path.read_bytes()
            while content:  # length, checksum, event, checksum
                size = int.from_bytes(content[:8], "little")
                event = Event.FromString(content[12 : 12 + size])
                content = content[12 + size + 4 :]
                if event.session_log.status == SessionLog.START:
                    shown = [each for each in shown if each[1] < event.step]
                shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        yield from shown


def wandb(run_dir: Path, identifier: str) -> Iterator[tuple[str, int, float]]:
    """Yields the history that offline runs hold, which `wandb sync` would upload."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(run_dir.glob(f"tracking/wandb/wandb/offline-run-*-{identifier}/*.wandb")):
        for content in records(path.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    if not name.startswith("_"):
                        yield name, record.history.step.num, json.loads(item.value_json)


def records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a log file, without an incomplete last one."""
    offset, parts = HEADER, b""  # the first bytes are wandb's own header
    while offset + HEADER <= len(content):
        if BLOCK - offset % BLOCK < HEADER:
            offset += BLOCK - offset % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", content[offset : offset + HEADER])
        part = content[offset + HEADER : offset + HEADER + size]
        if kind == 0 or len(part) < size:
            return
        parts += part
        offset += HEADER + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def mlflow(run_dir: Path, identifier: str) -> Iterator[tuple[str, int, float]]:
    """Yields the history of every metric."""
    from mlflow import MlflowClient

    client = MlflowClient()
    for name in client.get_run(identifier).data.metrics:
        for metric in client.get_metric_history(identifier, name):
            yield name, metric.step, metric.value


def trackio(run_dir: Path, identifier: str) -> Iterator[tuple[str, int, float]]:
    """Yields the stored figures."""
    from trackio.sqlite_storage import SQLiteStorage

    for row in SQLiteStorage.get_logs("mlagent_jax", identifier):
        for name, value in row.items():
            if name not in ("step", "timestamp"):
                yield name, row["step"], value


if __name__ == "__main__":
    service, root, run = sys.argv[1:]
    print(json.dumps(sorted(globals()[service](Path(root), run))))
