"""What a command raises -> its exit code and one message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

from iqa_core.errors import CallerError, IqaError, RunError, exit_code, listed

TEMPORARY = f"(in {tempfile.gettempdir()}, perhaps; TMPDIR names another folder for temporary files)"


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CallerError("no"), 2, "error: no\n"),
        (RunError("later"), 1, "failed: later\n"),
        (IqaError("x"), 1, "failed: x\n"),
        (OSError(28, "Full", "/a"), 1, "failed: [Errno 28] Full: '/a'\n"),
        (OSError(28, "Full"), 1, f"failed: [Errno 28] Full {TEMPORARY}\n"),
        (KeyboardInterrupt(), 1, "interrupted: what was committed stays; the same command goes on from there\n"),
    ],
)
def test_exit_codes(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raising(error)) == code
    assert capsys.readouterr().err == said


def test_of_many_names_the_first_are_listed() -> None:
    names = [f"d{index}" for index in range(1200)]
    assert listed(names[:3]) == listed(names[:3], 3) == "d0, d1, d2"
    assert listed(names, 2) == "d0, d1 and 1,198 more"
    assert len(listed(names)) < 250


def test_a_command_without_error_and_one_with_a_bug() -> None:
    assert exit_code(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        exit_code(raising(ZeroDivisionError()))


def test_a_reader_of_standard_output_that_has_gone_is_no_traceback() -> None:
    text = "import sys; from iqa_core.errors import exit_code; sys.exit(exit_code(lambda: print('x' * 10**6) or 0))"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_termination_ends_like_an_interrupt(capfd: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(stopped) == 1
    assert capfd.readouterr().err.startswith("terminated: ending as by Ctrl-C\ninterrupted: what was committed stays")
    assert signal.getsignal(signal.SIGTERM) is before
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does it in the background
    try:
        assert exit_code(stopped) == 1
    finally:
        signal.signal(signal.SIGINT, ignored)
