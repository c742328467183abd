"""Checkpoint names -> folders: what is refused, what is copied, and that it is copied once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fsspec
import pytest

from iqa_core.assessor.checkpoint.files import cache_dir, digests, materialise, portable_name
from iqa_core.errors import CallerError

FILES = {
    "config.json": b'{"model_type": "qwen2_5_vl"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "preprocessor_config.json": b"{}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as far as file names go."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


def copies() -> list[Path]:
    return sorted(path for path in (cache_dir() / "checkpoints").iterdir() if path.is_dir())


def test_the_demo_ships_with_the_package() -> None:
    assert (materialise("demo") / "model.safetensors").is_file()


def test_a_local_folder_is_used_where_it_is(folder: Path) -> None:
    assert materialise(str(folder)) == folder
    assert not cache_dir().exists()


def test_a_relative_folder_is_the_same_in_any_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert portable_name("checkpoint") == str(folder)
    assert portable_name("demo") == "demo"
    assert portable_name("s3://bucket/model") == "s3://bucket/model"


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", r"\*.safetensors .*pickles"),
        ("tokenizer.json", "a tokenizer"),
        ("preprocessor_config.json", "an image processor"),
    ],
)
def test_what_is_missing_is_named(folder: Path, file: str, named: str) -> None:
    (folder / file).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CallerError, match=f"lacks {named}"):
        materialise(str(folder))


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CallerError, match=r"lacks model-2\.safetensors, named in model.safetensors.index.json"):
        materialise(str(folder))
    (folder / "model-2.safetensors").touch()
    assert materialise(str(folder)) == folder


@pytest.mark.slow
def test_code_in_a_checkpoint_is_never_needed(folder: Path) -> None:
    remote = {"auto_map": {"AutoModel": "modeling.Model"}}
    (folder / "config.json").write_text(json.dumps({"model_type": "somebody_s_own", **remote}))
    with pytest.raises(CallerError, match=r"somebody_s_own.*auto_map"):
        materialise(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **remote}))
    assert materialise(str(folder)) == folder


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_configuration_is_the_callers_mistake(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CallerError, match="is not"):
        materialise(str(folder))


@pytest.mark.parametrize("name", ["./none", "nothing", "", "../a/b"])
def test_a_name_that_is_nothing_is_refused(name: str) -> None:
    with pytest.raises(CallerError, match="no checkpoint"):
        materialise(name)


HUB_SCRIPT = """
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.errors import CallerError
try:
    print(materialise("some-org/some_model.v1"))
except CallerError as error:
    print("refused:", error)
"""


def materialise_from_hub(home: Path, **environment: str) -> str:
    """In a process of its own: huggingface_hub reads its environment once, when it is imported."""
    variables = {**os.environ, "HF_HOME": str(home), **environment}
    command = [sys.executable, "-c", HUB_SCRIPT]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.slow
def test_a_hub_id_is_taken_from_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    """Offline, as on nodes without a way out."""
    repository = tmp_path / "hf" / "hub" / "models--some-org--some_model.v1"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    assert materialise_from_hub(tmp_path / "hf", HF_HUB_OFFLINE="1") == str(snapshot)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_that_does_not_have_it_is_the_callers_mistake(tmp_path: Path, environment: dict[str, str]) -> None:
    assert materialise_from_hub(tmp_path, **environment).startswith("refused: checkpoint 'some-org/some_model.v1'")


def test_a_uri_is_copied_without_pickles_code_and_subfolders(folder: Path) -> None:
    for name in ("pytorch_model.bin", "modeling.py", "training_args.pt"):
        (folder / name).write_bytes(b"no")
    (folder / "runs").mkdir()
    (folder / "runs" / "log.json").write_text("{}")
    copy = materialise(f"file://{folder}")
    assert copy != folder
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == FILES


def test_a_second_time_nothing_is_copied(folder: Path) -> None:
    first = materialise(f"file://{folder}/")
    before = (first / "model.safetensors").stat()
    assert materialise(f"file://{folder}/") == first
    after = (first / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_remote_is_copied_anew(folder: Path) -> None:
    first = materialise(f"file://{folder}")
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.safetensors", (1, 1))
    second = materialise(f"file://{folder}")
    assert (first / "model.safetensors").read_bytes() == b"weights"
    assert (second / "model.safetensors").read_bytes() == b"WEIGHTS"


def test_a_copy_that_was_cut_short_is_made_again(folder: Path) -> None:
    copy = materialise(f"file://{folder}")
    copy.with_suffix(".json").unlink()
    (copy / "model.safetensors").write_bytes(b"wei")
    (copy / "left_over.json").touch()
    assert materialise(f"file://{folder}") == copy
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == FILES


def _materialise_and_look(uri: str, start: Barrier, seen: Queue[tuple[str, int, int]]) -> None:
    start.wait()
    path = materialise(uri)
    stat = (path / "model.safetensors").stat()
    seen.put((str(path), stat.st_ino, stat.st_mtime_ns))


@pytest.mark.slow
def test_many_processes_copy_once(folder: Path) -> None:
    """All see one and the same file: a second copy would have another inode or time."""
    (folder / "model.safetensors").write_bytes(bytes(100_000_000))
    context = multiprocessing.get_context("spawn")
    start, seen = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_materialise_and_look, args=(f"file://{folder}", start, seen)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [seen.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(found)) == 1
    assert len(copies()) == 1


def test_any_file_system_of_fsspec_will_do() -> None:
    memory = fsspec.filesystem("memory")
    for name, content in FILES.items():
        memory.pipe_file(f"/models/one/{name}", content)
    copy = materialise("memory://models/one")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == FILES


@pytest.mark.parametrize("uri", ["file:///no/such/folder", "memory://nothing", "gopher://host/model"])
def test_a_uri_that_cannot_be_listed_is_the_callers_mistake(uri: str) -> None:
    with pytest.raises(CallerError, match=f"checkpoint {uri}"):
        materialise(uri)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket behind real HTTP, on a free port of this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = fsspec.filesystem("s3")
    name = f"models-{port}"  # the servers of a process share their buckets
    s3.mkdir(name)
    yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.mark.s3
def test_an_object_store_is_copied_and_its_changes_are_seen(bucket: str) -> None:
    s3 = fsspec.filesystem("s3")
    for name, content in FILES.items():
        s3.pipe_file(f"{bucket}/one/{name}", content)
    first = materialise(f"s3://{bucket}/one")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == FILES
    s3.pipe_file(f"{bucket}/one/model.safetensors", b"WEIGHTS")
    assert (materialise(f"s3://{bucket}/one") / "model.safetensors").read_bytes() == b"WEIGHTS"


@pytest.mark.s3
def test_options_reach_the_object_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = fsspec.filesystem("s3")
    for name, content in FILES.items():
        s3.pipe_file(f"{bucket}/two/{name}", content)
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": "key", "secret": "secret"}
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    folder = materialise(f"s3://{bucket}/two", options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_digests_are_of_contents(folder: Path, tmp_path: Path) -> None:
    first = digests(folder)
    assert digests(Path(shutil.copytree(folder, tmp_path / "copy"))) == first
    (folder / "README.md").write_text("about")
    assert digests(folder) == first
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    second = digests(folder)
    assert second.weights == first.weights
    assert second.tokenizer != first.tokenizer
    (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
    assert digests(folder).weights != first.weights
    assert digests(folder).tokenizer == second.tokenizer


def test_digests_are_kept_outside_the_checkpoint_until_a_file_changes(folder: Path) -> None:
    before = sorted(folder.iterdir())
    first = digests(folder)
    assert sorted(folder.iterdir()) == before
    [kept] = (cache_dir() / "digests").iterdir()
    kept.write_text(json.dumps({"weights": "kept", "tokenizer": "kept"}))
    assert digests(folder).weights == "kept"
    os.utime(folder / "model.safetensors", (1, 1))
    assert digests(folder) == first


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digests(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert digests(folder) == expected
