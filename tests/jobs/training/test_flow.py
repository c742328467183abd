"""Where Ray Train keeps checkpoints: on an object store, what one process has put there is taken up by another."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs
import pytest

from iqa_core.storage.storage import Storage
from jobs.training.flow import ray_storage
from tests.s3_server import Bucket, storage_options

pytestmark = [pytest.mark.slow, pytest.mark.s3]


def test_a_checkpoint_on_an_object_store_is_taken_up_as_it_was_left(s3: Bucket, tmp_path: Path) -> None:
    from ray.train import Checkpoint

    state = tmp_path / "step-2" / "state"
    state.mkdir(parents=True)
    (state / "shard-0.pt").write_bytes(bytes(range(256)) * 9_000)
    (tmp_path / "step-2" / "progress.json").write_text('{"step": 2}')
    places = [ray_storage(s3.uri("runs/ranked"), Storage(storage_options(s3.endpoint))) for _ in range(2)]
    (path, driver), (_, worker) = places
    assert path == f"{s3.name}/runs/ranked", "without its scheme"
    folder = pyarrow.fs.FileSelector(f"{path}/ray", allow_not_found=True)
    assert driver.get_file_info(folder) == []
    pyarrow.fs.copy_files(str(tmp_path / "step-2"), f"{path}/ray/checkpoint_1", destination_filesystem=worker)
    assert [info.base_name for info in driver.get_file_info(folder)] == ["checkpoint_1"], "no listing is remembered"
    with Checkpoint(f"{path}/ray/checkpoint_1", driver).as_directory() as taken:
        files = sorted(file for file in Path(taken).rglob("*") if file.is_file() and not file.name.startswith("."))
        assert [file.name for file in files] == ["progress.json", "shard-0.pt"]
        assert files[1].read_bytes() == (state / "shard-0.pt").read_bytes()
