"""An exception that a signal raises reaches the main thread, also if the signal arrives in a finalizer."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, os, signal, sys, time, weakref
from rollout.runtime.signals import raise_from_handler

def plain(number, frame):
    raise KeyboardInterrupt

def ours(number, frame):
    raise_from_handler(KeyboardInterrupt())

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

class Referenced:
    pass

def callback(reference):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

class Failing:
    def __del__(self):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        finally:
            [][0]

def arrive(place):
    if place == "finalizer":
        Finalized()
    elif place == "failing":
        Failing()
    elif place == "callback":
        thing = Referenced()
        reference = weakref.ref(thing, callback)
        del thing
    else:
        os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, {"plain": plain, "ours": ours}[sys.argv[1]])
try:
    arrive(sys.argv[2])
    for _ in range(200):
        time.sleep(0.01)
    print("lost")
except KeyboardInterrupt:
    print("raised")
Other = type("Other", (), {"__del__": lambda self: 1 / 0})
Other()
"""


def output(handler: str, place: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, handler, place], capture_output=True, text=True, timeout=60)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("place", ["finalizer", "callback"])
def test_python_discards_what_a_plain_handler_raises(place: str) -> None:
    said, errors = output("plain", place)
    assert said == "lost" and "KeyboardInterrupt" in errors


@pytest.mark.parametrize("place", ["finalizer", "callback", "main"])
def test_exception_is_raised_in_the_main_thread_and_nothing_is_printed(place: str) -> None:
    said, errors = output("ours", place)
    assert said == "raised" and "KeyboardInterrupt" not in errors
    assert "ZeroDivisionError" in errors  # what others discard is still printed


def test_an_exception_that_a_finalizer_replaces_by_another_arrives_too() -> None:
    said, errors = output("ours", "failing")
    assert said == "raised" and "IndexError" in errors
