"""A process that hangs, ended from outside its own code."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, signal, threading, time
from iqa_core.deadline import deadline

def hang():
    with deadline({limit_s}): {block}

{call}
"""


def ended(limit_s: float, block: str, call: str = "hang()") -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(limit_s=limit_s, block=block, call=call)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "block", ["time.sleep(20)", "ctypes.PyDLL(None).sleep(20)"], ids=["in Python", "holding the interpreter's lock"]
)
@pytest.mark.parametrize("call", ["hang()", "threading.Thread(target=hang).start()"], ids=["main thread", "a thread"])
def test_a_block_that_takes_too_long_ends_the_process_and_says_where(block: str, call: str) -> None:
    process = ended(0.1, block, call)
    assert process.returncode == -signal.SIGALRM
    assert "in hang" in process.stderr


@pytest.mark.parametrize(("block", "code"), [("sum(iter(int, 1))", -signal.SIGPROF), ("time.sleep(0.2)", 0)])
def test_the_clock_of_the_cpu_ends_what_works_and_not_what_waits(block: str, code: int) -> None:
    script = f"import time\nfrom iqa_core.deadline import Clock, deadline\nwith deadline(0.1, Clock.CPU): {block}"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == code


def test_a_block_in_time_does_not() -> None:
    assert ended(10, "pass", "hang(); assert signal.getitimer(signal.ITIMER_REAL)[0] == 0").returncode == 0


def test_each_block_has_the_whole_time() -> None:
    assert ended(2, "time.sleep(0.7)", "[hang() for _ in range(3)]").returncode == 0
