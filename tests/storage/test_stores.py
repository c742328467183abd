"""Stores that are no S3, through fsspec's general interface: the same promises."""

from __future__ import annotations

import uuid

import pytest

from iqa_core.errors import CallerError
from iqa_core.storage.failures import FetchFailed, Missing, Oversized
from iqa_core.storage.storage import Storage


@pytest.fixture
def folder() -> str:
    """A folder in fsspec's store in memory, which is one for the whole process."""
    return f"memory://{uuid.uuid4().hex}"


def test_what_is_put_is_read_listed_and_deleted(folder: str) -> None:
    storage = Storage()
    for name in ("b/two.png", "a.png", "b/one.png"):
        storage.put(f"{folder}/{name}", name.encode())
    assert [entry.uri for entry in storage.walk(folder)] == [
        f"{folder}/{name}" for name in ("a.png", "b/one.png", "b/two.png")
    ]
    assert storage.names(f"{folder}/b") == ["one.png", "two.png"]
    assert storage.names(f"{folder}/nothing") == []
    assert storage.read(f"{folder}/a.png") == b"a.png"
    assert storage.read(f"{folder}/a.png", 1, 3) == b".p"
    found = storage.stat(f"{folder}/a.png")
    assert found is not None
    assert (found.uri, found.size) == (f"{folder}/a.png", 5)
    assert storage.stat(f"{folder}/b") is None
    storage.delete(f"{folder}/a.png")
    storage.delete(f"{folder}/a.png")
    assert storage.stat(f"{folder}/a.png") is None


def test_create_keeps_what_lies_there(folder: str) -> None:
    storage = Storage()
    assert storage.create(f"{folder}/plan.json", b"first")
    assert not storage.create(f"{folder}/plan.json", b"second")
    storage.begin(f"{folder}/plan.json", b"third", f"{folder}/.tmp")
    assert storage.read(f"{folder}/plan.json") == b"first"
    storage.begin(f"{folder}/other.json", b"first", f"{folder}/.tmp")
    assert storage.names(folder) == ["other.json", "plan.json"]


def test_reading_is_whole_or_not_at_all(folder: str) -> None:
    storage = Storage()
    storage.put(f"{folder}/x", b"12345")
    assert storage.read(f"{folder}/x", max_bytes=5) == b"12345"
    with pytest.raises(Oversized, match="5 bytes"):
        storage.read(f"{folder}/x", max_bytes=4)
    with pytest.raises(Missing):
        storage.read(f"{folder}/y")


def test_a_local_file_that_became_shorter_is_not_read(tmp_path: object) -> None:
    path = f"{tmp_path}/x"
    Storage().put(path, b"12345")
    with pytest.raises(FetchFailed, match="it has 5 bytes, 6 were expected"):
        Storage().read(path, 2, 6)


def test_a_scheme_that_nobody_speaks_names_nothing() -> None:
    with pytest.raises(Missing, match="no storage of the kind nosuch://"):
        Storage().read("nosuch://bucket/x")


def test_a_scheme_whose_library_is_absent_is_the_callers_matter() -> None:
    with pytest.raises(CallerError, match="gcsfs"):
        Storage().read("gs://bucket/x")


def test_a_scheme_has_no_case(folder: str) -> None:
    storage = Storage()
    storage.put(f"{folder}/x", b"12345")
    assert storage.read(f"{folder}/x".replace("memory", "Memory")) == b"12345"
    assert [entry.uri for entry in storage.walk(folder.replace("memory", "MEMORY"))] == [f"{folder}/x"]
