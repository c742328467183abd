"""Workers of tests: what one cannot even load ends the test, instead of being waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.workers import Job, run_jobs

pytestmark = pytest.mark.slow


class Unloadable:
    """A task that no other process can make of its pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_a_worker_that_fails_before_it_begins_fails_the_run(tmp_path: Path) -> None:
    task: Any = Unloadable()
    with pytest.raises(AssertionError, match="worker 0 ended with exit code 1, and no word"):
        run_jobs(tmp_path, 1, [Job("unloadable", task)])
