"""The limits of a script, and the outcome when it exceeds them."""

import os
import subprocess
import time

import pytest

from rollout.executor.backends.local.output import BoundedOutput

from .conftest import processes_with


@pytest.mark.parametrize(
    "ignore", ["", "for n in set(signal.valid_signals()) - {9, 19}: signal.signal(n, signal.SIG_IGN)"]
)
def test_an_endless_loop_is_ended_in_time(sandboxes, ignore):
    started = time.monotonic()
    done = sandboxes.run(f"import signal\nprint('begun')\n{ignore}\nwhile True: pass", seconds=1.5)
    assert (done.exit, done.output, done.submission) == ("timeout", "begun\n", None)
    assert 1.4 < done.seconds < 5.0 and time.monotonic() - started < 6.0


def test_memory_of_one_process_is_limited(sandboxes):
    take = "x = bytearray(400 << 20)\nimport time; time.sleep(0.3)\nprint('had it')"
    assert sandboxes.run(take, memory_mb=600).output == "had it\n"
    done = sandboxes.run(take, memory_mb=200)
    assert (done.exit, done.output) == ("out_of_memory", "")


MANY = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        x = bytearray(100 << 20)
        time.sleep(5)
        os._exit(0)
time.sleep({seconds})
print("had it")
"""


def test_memory_of_several_processes_counts_together(sandboxes):
    assert sandboxes.run(MANY.format(seconds=0.5), memory_mb=800).output == "had it\n"
    done = sandboxes.run(MANY.format(seconds=5), memory_mb=300)
    assert (done.exit, done.output) == ("out_of_memory", "")


def test_memory_shared_after_a_fork_counts_once(sandboxes):
    share = """
import os, time
x = bytearray(200 << 20)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
time.sleep(0.5)
print("shared")
"""
    assert sandboxes.run(share, memory_mb=400).output == "shared\n"


def test_an_allocation_that_is_refused_is_out_of_memory(sandboxes):
    done = sandboxes.run("x = bytearray(1 << 40)")
    assert done.exit == "out_of_memory" and done.output.endswith("MemoryError\n")


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm"])
def test_every_folder_that_can_be_written_is_limited(sandboxes, folder):
    fill = f"""
written = 0
for number in range(40):
    with open(f"{folder}/{{number}}", "wb") as file:
        written += file.write(bytes(1 << 20))
print(written >> 20)
"""
    assert sandboxes.run(fill, workspace_mb=48).output == "40\n"
    done = sandboxes.run(fill, workspace_mb=8)
    assert done.exit == "out_of_disk" and "No space left on device" in done.output


def test_a_large_file_is_out_of_disk(sandboxes):
    write = "with open('large', 'wb') as file: file.write(bytes(20 << 20))\nprint('written')"
    assert sandboxes.run(write).output == "written\n"
    done = sandboxes.run(write, file_mb=8)
    assert done.exit == "out_of_disk" and "File too large" in done.output


def test_a_flood_of_empty_files_is_out_of_disk(sandboxes):
    done = sandboxes.run("n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1", seconds=30.0)
    assert done.exit == "out_of_disk" and done.seconds < 25


def test_a_fork_bomb_stays_inside(sandboxes):
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    most = (
        "import os\nn = 0\nwhile n < 100 and os.fork():\n    n += 1\nelse:\n    n < 100 and __import__('time').sleep(5)"
    )
    assert sandboxes.run(most + "\nprint(n)", num_processes=120).output.endswith("100\n")
    refused = sandboxes.run(most + "\nprint(n)", num_processes=40)
    assert refused.exit == "out_of_processes" and "Resource temporarily unavailable" in refused.output
    started = time.monotonic()
    done = sandboxes.run(bomb, seconds=1.0, num_processes=40)
    assert done.exit == "timeout" and time.monotonic() - started < 10.0
    assert sandboxes.run("print('alive')").output == "alive\n"


@pytest.mark.slow
def test_processes_of_the_same_user_outside_do_not_count(sandboxes):
    if os.geteuid() == 0:
        become = ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups"]
    else:
        become = []
    crowd = [subprocess.Popen([*become, "sleep", "30"]) for _ in range(80)]
    try:
        fork = (
            "import os, time\nfor _ in range(20):\n    if os.fork() == 0: time.sleep(1); os._exit(0)\nprint('forked')"
        )
        assert sandboxes.run(fork, num_processes=30).output == "forked\n"
    finally:
        for process in crowd:
            process.kill()
            process.wait()


def test_a_daemon_neither_delays_the_result_nor_outlives_it(sandboxes):
    token = str(time.time_ns())
    daemon = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "30.{token}"])
    os._exit(0)
os.wait()
print("left")
"""
    started = time.monotonic()
    done = sandboxes.run(daemon)
    assert (done.exit, done.output) == ("ok", "left\n") and time.monotonic() - started < 10.0
    assert processes_with(token) == []


def test_a_flood_of_output_is_cut_in_the_middle(sandboxes):
    flood = "print('first')\nfor _ in range(3000): print('x' * 10_000)\nprint('last')"
    done = sandboxes.run(flood, output_kb=16)
    assert done.exit == "ok" and len(done.output) < 17_000
    assert done.output.startswith("first\nxxx") and done.output.endswith("xxx\nlast\n")
    assert f"[{6 + 3000 * 10_001 + 5 - 16 * 1024} bytes of output cut]" in done.output


def test_an_endless_flood_of_output_ends_in_time(sandboxes):
    done = sandboxes.run("import os\nwhile True: os.write(1, b'y' * 65536)", seconds=1.0)
    assert done.exit == "timeout" and len(done.output) < 66_000


def test_a_script_killed_by_a_signal_is_distinguished_from_a_crash(sandboxes):
    assert sandboxes.run("import os; os.kill(os.getpid(), 9)").exit == "killed"
    assert sandboxes.run("import os; os.abort()").exit == "killed"
    assert sandboxes.run("raise SystemExit(3)").exit == "crashed"
    assert sandboxes.run("1 / 0").output.endswith("ZeroDivisionError: division by zero\n")


def test_bounded_output_keeps_short_streams_whole():
    output = BoundedOutput(10)
    for chunk in (b"abc", b"defg", b"hij"):
        output.add(chunk)
    assert output.text() == "abcdefghij"
    output.add(b"k" * 100)
    assert output.text() == "abcde\n[100 bytes of output cut]\nkkkkk"
