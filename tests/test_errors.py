"""What a command raises -> its exit code and one message."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from iqa_core.errors import CallerError, IqaError, RunError, exit_code


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
        (OSError(28, "No space left on device"), 1, "failed: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 1, "interrupted: what was committed stays; the same command goes on from there\n"),
    ],
)
def test_exit_codes(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raising(error)) == code
    assert capsys.readouterr().err == said


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
