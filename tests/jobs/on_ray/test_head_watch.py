"""A head that is lost: said in words, exit 1, also where taking leave of it would hang."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

from jobs.on_ray.head_watch import _watch, head_watched
from tests.jobs.running import ROOT

DRIVER = """
import sys, time
from iqa_core.errors import exit_code
from jobs.on_ray.head_watch import head_watched

def work():
    with head_watched(sys.argv[1], silent_s=0.2, grace_s={grace_s}):
        try:
            time.sleep(600)
        finally:
            {leave}

sys.exit(exit_code(work))
"""


@pytest.mark.parametrize(("leave", "grace_s"), [("print('left', flush=True)", 60), ("time.sleep(600)", 0.5)])
def test_a_driver_whose_head_is_lost(leave: str, grace_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", DRIVER.format(leave=leave, grace_s=grace_s), address]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.accept()[0].close()
        assert process.poll() is None
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (1, "left\n" if "print" in leave else "")
    assert said.startswith(f"failed: the head of the Ray cluster, {address}, is lost: it has not answered for")
    assert "Traceback" not in said


def test_a_head_may_go_once_its_driver_has_left() -> None:
    left = threading.Event()
    left.set()
    _watch("127.0.0.1:1", 0.0, 0.0, left)  # interrupts this process where it takes the head for lost


def test_a_head_that_answers_is_let_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with head_watched(address, silent_s=0.5, grace_s=0.5):
            for _ in range(8):  # looks, four in the time that a silence may last
                server.accept()[0].close()
