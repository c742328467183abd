"""Many URIs -> bytes in order; what cannot be had is one rejection in its place, with a detail that tells no paths."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from iqa_core.corpus.fetching import LOOKAHEAD, fetch, fetch_all
from iqa_core.corpus.storage import Storage
from iqa_core.records import ImageLimits, Reason, Rejection


def test_bytes_come_in_order_whatever_fails_between(tmp_path: Path) -> None:
    wanted: list[tuple[str, int | None]] = []
    for index in range(3 * LOOKAHEAD):
        path = tmp_path / f"{index}.jpg"
        if index % 5:
            path.write_bytes(b"%d" % index)
        wanted.append((str(path), len(b"%d" % index) if index % 2 else None))
    found = list(fetch_all(Storage(), wanted, ImageLimits()))
    assert len(found) == len(wanted)
    for index, data in enumerate(found):
        if index % 5:
            assert data == b"%d" % index
        else:
            assert data == Rejection(Reason.MISSING, "there is no such file")


def test_no_more_is_fetched_than_is_soon_used(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    taken = 0

    def wanted() -> Iterator[tuple[str, int | None]]:
        nonlocal taken
        for _ in range(10 * LOOKAHEAD):
            taken += 1
            yield str(tmp_path / "a"), 1

    found = fetch_all(Storage(), wanted(), ImageLimits())
    next(found)
    assert taken <= LOOKAHEAD + 1
    found.close()  # type: ignore[attr-defined]


def test_too_large_is_said_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(101))
    limits = ImageLimits(max_bytes=100)
    for size in (101, None):
        rejection = fetch(Storage(), str(path), size, limits)
        assert isinstance(rejection, Rejection)
        assert rejection.reason == Reason.TOO_LARGE
        assert "101 bytes" in rejection.detail
    assert fetch(Storage(), str(path), None, ImageLimits(max_bytes=101)) == bytes(101)


def test_a_locked_file_is_forbidden(tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with as_nobody(tmp_path):
        assert fetch(Storage(), str(path), 1, ImageLimits()) == Rejection(Reason.FORBIDDEN, "access is denied")


def test_a_file_that_changed_since_it_was_listed_is_read_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    for listed in (3, 5, 9):
        assert fetch(Storage(), str(tmp_path / "a.jpg"), listed, ImageLimits()) == b"12345"


def test_a_detail_tells_no_path(tmp_path: Path) -> None:
    for name in ("none", "zero\0byte", "n" * 300):
        rejection = fetch(Storage(), str(tmp_path / name), None, ImageLimits())
        assert isinstance(rejection, Rejection)
        assert str(tmp_path) not in rejection.detail


def test_a_consumer_that_turns_away_is_not_kept_waiting() -> None:
    """A generator that joins threads when dropped hangs if the garbage collector drops it amid a thread's start."""
    release = threading.Event()

    @dataclass(frozen=True)
    class Slow(Storage):
        def read(self, uri: str, begin: int = 0, end: int | None = None, max_bytes: int | None = None) -> bytes:
            if uri.endswith("slow"):
                release.wait(20)
            return b"x"

    found = fetch_all(Slow(), [("a", 1), *[("slow", 1)] * LOOKAHEAD], ImageLimits())
    next(found)
    began = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    release.set()
