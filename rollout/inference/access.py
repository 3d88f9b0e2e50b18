"""The key of a policy server, without which it refuses to sample, load weights or call its workers.

The key travels in an environment variable, never on a command line, which every user of a machine can read.
"""

import os
import secrets
from collections.abc import Mapping

KEY_VARIABLE = "MLAGENT_SERVER_KEY"


def new_key() -> str:
    """Return a random key."""
    return secrets.token_urlsafe(32)


def key_in(variable: str) -> str:
    """Return the key in an environment variable, empty if there is none."""
    return os.environ.get(variable, "").strip()


def authorization(key: str) -> Mapping[str, str]:
    """Return the headers of a request to a server with a key; none if the key is empty."""
    return {"Authorization": f"Bearer {key}"} if key else {}
