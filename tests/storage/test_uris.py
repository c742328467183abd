"""URIs and local paths, however they are spelled -> one form of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iqa_core.storage.uris import absolute, canonical, local_path

NOT_UTF_8 = b"caf\xe9.jpg"


def test_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/../b/") == str(tmp_path / "b")
    assert absolute(f"{tmp_path}//b/.") == str(tmp_path / "b")
    assert absolute(f"file://{tmp_path}/a%20b") == str(tmp_path / "a b")
    assert absolute("s3://bucket/a/") == "s3://bucket/a"
    assert os.fsencode(local_path(absolute(os.fsdecode(NOT_UTF_8)))).endswith(NOT_UTF_8)


def test_other_spellings_of_a_local_uri(tmp_path: Path) -> None:
    for uri in (f"file:{tmp_path}/a%20b", f"FILE://{tmp_path}/a%20b", f"file://LOCALHOST{tmp_path}/a%20b/"):
        assert absolute(uri) == str(tmp_path / "a b")
    assert absolute("S3://Bucket/Key/") == "s3://Bucket/Key"
    assert absolute("s3://") == "s3://"
    assert canonical("simplecache::HTTP://Host/A") == "simplecache::http://Host/A"
    for path in ("/a/B://c", "A/b://c", "file:name", "C:/x", "filex:/a"):
        assert canonical(path) == path
