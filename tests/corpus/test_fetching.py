"""Many URIs -> bytes in order; what cannot be had is one rejection in its place, with a detail that tells no paths."""

from __future__ import annotations

import base64
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from iqa_core.corpus.fetching import LOOKAHEAD, fetch, fetch_all
from iqa_core.errors import RunError
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.storage import Storage


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
                release.wait(120)
            return b"x"

    found = fetch_all(Slow(), [("a", 1), *[("slow", 1)] * LOOKAHEAD], ImageLimits())
    next(found)
    began = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 60
    release.set()


@pytest.mark.parametrize(
    ("uri", "reason", "said"),
    [
        ("zip://x.png::/nowhere/a.zip", Reason.MISSING, "no such file"),
        ("zip://x.png::{folder}/no.zip", Reason.FETCH_FAILED, "BadZipFile"),
        ("zip://other.png::{folder}/a.zip", Reason.MISSING, "no such file"),
        ("tar://x::zip://y::/nowhere", Reason.MISSING, "no such file"),
        ("zip://", Reason.MISSING, "no such file"),
        ("gs://bucket/x.png", Reason.FETCH_FAILED, "gcsfs"),
        ("GS://bucket/x.png", Reason.FETCH_FAILED, "gcsfs"),
        ("nosuch://x", Reason.MISSING, "no storage of the kind nosuch://"),
        ("nosuch::memory://x", Reason.MISSING, "no storage of the kind nosuch::memory://"),
        ("reference://x", Reason.FETCH_FAILED, "TypeError"),
        ("memory://", Reason.MISSING, "no such file"),
        ("memory://zero\0byte", Reason.MISSING, "no such file"),
        ("http://[::1/x.png", Reason.MISSING, "no such file"),
        ("http://", Reason.MISSING, "no such file"),
        ("http://127.0.0.1:99999/x.png", Reason.MISSING, "no such file"),
        ("{folder}", Reason.MISSING, "no such file"),
        ("file://{folder}/a%00.png", Reason.MISSING, "no such file"),
        ("file://{folder}/\ud800.png", Reason.MISSING, "no such file"),
        ("{folder}/" + "n/" * 3000, Reason.MISSING, "no such file"),
        ("C:\\images\\x.png", Reason.MISSING, "Windows"),
        ("{folder}/C:/images/x.png", Reason.MISSING, "Windows"),
        ("data:image/png;base64", Reason.CORRUPT, "comma"),
        ("data:image/png;base64,iVBOR", Reason.CORRUPT, "base64"),
        ("data:image/png;base64,iV*B", Reason.CORRUPT, "base64"),
        ("data:image/png;base64,iVBOR w0KGgo", Reason.CORRUPT, "a + that was sent"),
        ("data:image/png;base64,AAA\ud800", Reason.CORRUPT, "ASCII"),
        ("data:,\ud800", Reason.CORRUPT, "half a character"),
        ("data:image/png;base64," + "A" * 200, Reason.TOO_LARGE, "150 bytes"),
        ("data:," + "A" * 101, Reason.TOO_LARGE, "101 bytes"),
        ("data:,", None, ""),
    ],
)
def test_whatever_a_uri_does_to_its_file_system_is_that_rows(
    uri: str, reason: Reason | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "no.zip").write_bytes(b"none")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.png", b"sound")
    assert fetch(Storage(), f"zip://x.png::{tmp_path}/a.zip", None, ImageLimits()) == b"sound"
    found = fetch(Storage(), uri.replace("{folder}", str(tmp_path)), None, ImageLimits(max_bytes=100))
    if reason is None:
        assert found == b""
        return
    assert isinstance(found, Rejection)
    assert found.reason == reason
    assert said in found.detail
    assert str(tmp_path) not in found.detail


def test_a_data_uri_is_read_in_every_spelling_of_base64() -> None:
    data = bytes(range(250, 256)) + b"\xfb\xff"
    text = base64.b64encode(data).decode()
    folded = "%0A".join((text[:5], text[5:]))
    for body in (text, text.rstrip("="), text.replace("+", "-").replace("/", "_"), text.replace("/", "%2F"), folded):
        assert fetch(Storage(), f"data:image/png;charset=x;BASE64,{body}", None, ImageLimits()) == data
    assert fetch(Storage(), "data:,a%20b+c", None, ImageLimits()) == b"a b+c"


def test_refused_credentials_are_no_rows_matter() -> None:
    class Expired(Storage):
        def read(self, uri: str, begin: int = 0, end: int | None = None, max_bytes: int | None = None) -> bytes:
            raise RunError("expired")

    with pytest.raises(RunError):
        fetch(Expired(), "s3://bucket/x.png", None, ImageLimits())
