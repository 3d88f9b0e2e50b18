import os
import signal
import subprocess
import sys
import time

from rollout.runtime.parent_death import dies_with_us

CHILD = """
import time
from rollout.runtime.parent_death import die_with_parent
die_with_parent()
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys
from rollout.runtime.parent_death import dies_with_us
asked = dies_with_us() if sys.argv[1] == "asked" else {{}}
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env={{**os.environ, **asked}}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def killed_parents_child(mode: str) -> int:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, mode], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return child


def is_running(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


def test_a_helper_ends_with_a_killed_parent_only_when_asked():
    survivor = killed_parents_child("not asked")
    try:
        assert is_running(survivor, 0.5)
    finally:
        os.kill(survivor, signal.SIGKILL)
    assert not is_running(killed_parents_child("asked"), 10)


def test_a_helper_whose_parent_is_gone_already_does_not_start():
    environment = {**os.environ, **{name: "1" for name in dies_with_us()}}
    assert subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True).returncode == 1
