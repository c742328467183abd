"""Records of a run: in the order of steps whatever is done again, bounded, and on an object store as on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.storage.storage import Storage
from jobs.training.records import TEXTS, Log, RecordsFile
from tests.s3_server import Bucket, storage_options


def test_what_is_done_again_after_a_restart_replaces_what_was_noted(tmp_path: Path) -> None:
    file = RecordsFile.of(str(tmp_path), Storage(), TEXTS)
    assert file.read() == []
    first = Log(file)
    for step in (2, 4, 6):
        first.add(step, [{"text": f"{step} of the first", "n": n} for n in range(2)])
    again = Log(file)
    again.add(4, [{"text": "4 of the second"}])
    again.add(6, [])
    found = [(record["step"], record["text"]) for record in file.read()]
    assert found == [(2, "2 of the first"), (2, "2 of the first"), (4, "4 of the second")]


def test_a_long_run_keeps_texts_of_some_steps_evenly(tmp_path: Path) -> None:
    file = RecordsFile.of(str(tmp_path), Storage(), TEXTS)
    log = Log(file, 8)
    for step in range(5, 205, 5):
        if step in (30, 80, 85):
            log = Log(file, 8)  # what a restart knows is what is there
        log.add(step, [{"text": str(step)}, {"text": "another image"}])
        records = file.read()
        steps = sorted({record["step"] for record in records})
        assert (steps[0], steps[-1]) == (5, step), "the first and the last are always there"
        assert len(steps) <= 8
        assert len(records) == 2 * len(steps)
    assert steps == [5, 45, 85, 125, 165, 200]
    log.add(201, [{"text": "the end"}])
    assert [record["text"] for record in file.read()[-2:]] == ["another image", "the end"]


@pytest.mark.s3
def test_on_an_object_store_the_next_driver_goes_on_with_them(s3: Bucket) -> None:
    storage = Storage(storage_options(s3.endpoint))
    Log(RecordsFile.of(s3.uri("run"), storage, TEXTS)).add(2, [{"text": "é\n\ud800"}])
    Log(RecordsFile.of(s3.uri("run"), storage, TEXTS)).add(4, [{"text": "b"}])
    assert [record["text"] for record in RecordsFile.of(s3.uri("run"), storage, TEXTS).read()] == ["é\n\ud800", "b"]
