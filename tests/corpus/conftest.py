"""What corpus tests share: being nobody for a while, since root may read everything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def as_nobody() -> Callable[[Path], AbstractContextManager[None]]:
    """A context in which this process may read and write a folder, but not what is locked in it."""

    @contextmanager
    def context(folder: Path) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        folder.chmod(0o777)
        for parent in folder.parents:  # pytest's own folders are closed to others
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005 and str(parent).count("/") > 1:
                parent.chmod(0o755)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return context
