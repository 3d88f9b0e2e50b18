"""Check that a server on another machine sees the folder through which it gets new weights."""

import os
import secrets
from pathlib import Path

from rollout.errors import ServerError
from rollout.inference.connection import Connection


async def check_shared(connection: Connection, folder: Path) -> None:
    """Check that the server sees what this process writes to a folder; else the first weight update would fail.

    Args:
        connection: The connection to the server.
        folder: The folder; made if missing.

    Raises:
        ServerError: If it does not.
    """
    probe, text = folder / f"probe.{os.getpid()}", secrets.token_hex(8)
    folder.mkdir(parents=True, exist_ok=True)
    probe.write_text(text)
    try:
        request = {"method": "read_probe", "args": [str(probe.absolute())]}
        answer = await connection.post("/collective_rpc", request)
    finally:
        probe.unlink()
    if set(answer["results"]) != {text}:
        raise ServerError(
            f"the policy server at {connection.address} does not see {folder.absolute()}, through which it gets new "
            "weights; share the run directory with its machine under the same path (NFS, Lustre, a mounted bucket), or "
            "give another run_dir"
        )
