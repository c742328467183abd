"""A head that is lost: said in words, exit 1, also where taking leave of it would hang."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest

from jobs.on_ray.head_watch import _watch, head_watched
from tests.jobs.running import ROOT

DRIVER = """
import sys, time
from iqa_core.errors import exit_code
from jobs.on_ray.head_watch import head_watched

def work():
    with head_watched(sys.argv[1], silent_s=0.2, grace_s=0.5):
        try:
            time.sleep(60)
        finally:
            {leave}

sys.exit(exit_code(work))
"""


@pytest.mark.parametrize("leave", ["print('left', flush=True)", "time.sleep(60)"])
def test_a_driver_whose_head_is_lost(leave: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", DRIVER.format(leave=leave), address]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.accept()[0].close()
        assert process.poll() is None
    began = time.monotonic()
    printed, said = process.communicate(timeout=20)
    assert (process.returncode, printed) == (1, "left\n" if "print" in leave else "")
    assert said.startswith(f"failed: the head of the Ray cluster, {address}, is lost: it has not answered for")
    assert "Traceback" not in said
    assert time.monotonic() - began < 15


def test_a_head_may_go_once_its_driver_has_left() -> None:
    left = threading.Event()
    left.set()
    _watch("127.0.0.1:1", 0.0, 0.0, left)  # interrupts this process where it takes the head for lost


def test_a_head_that_answers_is_let_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with head_watched(address, silent_s=1.0, grace_s=1.0):
            time.sleep(0.3)
