"""The flags of the TPU compiler are set before it is loaded."""

import os

import pytest

from mlagent_jax.platform import tpu


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", f"{tpu.WINDOWED}={tpu.NEVER}"),
        ("--one=1", f"--one=1 {tpu.WINDOWED}={tpu.NEVER}"),
        (f"{tpu.WINDOWED}=5 --one=1", f"{tpu.WINDOWED}=5 --one=1"),  # the user's word stands
    ],
)
def test_arguments_are_added_to_those_of_the_user(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
    tpu.prepare()
    tpu.prepare()
    assert os.environ["LIBTPU_INIT_ARGS"] == expected
