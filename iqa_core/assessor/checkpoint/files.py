"""A checkpoint's name -> a complete local folder, and the digests of what is in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from iqa_core.assessor.families import OVIS2_5
from iqa_core.errors import CallerError, RunError
from iqa_core.hub import HUB_NAME, fetch_from_hub

WEIGHTS = ("*.safetensors", "config.json")
TOKENIZER = tuple(
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt "
    "*.model processor_config.json preprocessor_config.json chat_template.json *.jinja".split()
)
FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.toml")
"""Files of a remote checkpoint that are copied: no pickles, no Python."""

SHIPPED = {"demo": "checkpoint", "demo-written": "written"}
"""Names of the checkpoints that come with the package -> their folders in `iqa_core/demo`."""

VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
"""Where fsspec file systems keep what changes when a file is replaced by one of the same size; the first counts."""


@dataclass(frozen=True, slots=True)
class CheckpointDigests:
    """SHA-256, hex, over names and contents."""

    weights: str
    """Digest of *.safetensors and config.json."""
    tokenizer: str
    """Digest of the files of tokenizer, processor and chat template."""


def cache_dir() -> Path:
    """Folder of copies and digests on this node: `$XDG_CACHE_HOME/iqa-ray`, by default `~/.cache/iqa-ray`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iqa-ray"


def materialise(checkpoint: str, storage_options: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """The complete local folder of a checkpoint; a remote one is fetched once per node.

    checkpoint: one of SHIPPED, a local folder, a hub id `org/name` or `org/name/folder`, or an fsspec URI such as
    `s3://bucket/folder`.
    Raises CallerError when there is no such checkpoint or something is missing in it, RunError when a remote one
    changes while it is copied.
    """
    folder = _locate(checkpoint, storage_options)
    require_complete(folder)
    return folder


def portable_name(checkpoint: str) -> str:
    """The checkpoint's name with a local folder as an absolute path: Ray's actors have another working directory."""
    folder = Path(checkpoint).expanduser()
    return str(folder.absolute()) if checkpoint not in SHIPPED and folder.is_dir() else checkpoint


def require_complete(folder: Path) -> None:
    """Raises CallerError, which names what a checkpoint folder lacks: configuration, safetensors weights, tokenizer.

    It is also raised for a model that only the checkpoint's own Python code could load.
    """
    missing = list(_missing(folder))
    if missing:
        raise CallerError(f"checkpoint {folder} lacks {'; '.join(missing)}")
    config = read_json(folder / "config.json")
    if "auto_map" in config and not _is_known(config.get("model_type")):
        raise CallerError(
            f"checkpoint {folder} is of model type {config.get('model_type')!r}, which the installed transformers "
            "does not know, and its own code (auto_map) is never run; convert it, or upgrade transformers"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's file, {} when there is no such file. Raises CallerError on anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CallerError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CallerError(f"{path} is not a JSON object")
    return content


def digests(folder: Path) -> CheckpointDigests:
    """Digests of a checkpoint folder, kept in `cache_dir` until a file's name, size or time changes."""
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in _stats(folder, WEIGHTS + TOKENIZER)]
    kept = cache_dir() / "digests" / f"{_digest([str(folder.resolve()), files])}.json"
    with suppress(OSError, ValueError, TypeError):
        return CheckpointDigests(**json.loads(kept.read_text()))
    found = CheckpointDigests(weights=_digest_of(folder, WEIGHTS), tokenizer=_digest_of(folder, TOKENIZER))
    with suppress(OSError):  # where the cache cannot be written, the weights are read again
        kept.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(kept, asdict(found))
    return found


def _locate(checkpoint: str, storage_options: Mapping[str, Any]) -> Path:
    if checkpoint in SHIPPED:
        return Path(str(resources.files("iqa_core.demo"))) / SHIPPED[checkpoint]
    if "://" in checkpoint:
        return _copy_once(checkpoint, storage_options)
    folder = Path(checkpoint).expanduser()
    if checkpoint and folder.is_dir():
        return folder.absolute()
    if HUB_NAME.fullmatch(checkpoint):
        return _from_hub(checkpoint)
    raise CallerError(
        f"no checkpoint {checkpoint!r}: neither a local folder, nor a hub id (org/name or org/name/folder), nor a URI, "
        "nor one that ships (demo, demo-written)"
    )


def _missing(folder: Path) -> Iterator[str]:
    if not (folder / "config.json").is_file():
        yield "config.json"
    if not any(folder.glob("*.safetensors")):
        yield "*.safetensors weights (pickles such as *.bin and *.pt are never loaded; save them anew as safetensors)"
    for index in folder.glob("*.safetensors.index.json"):
        shards = set(read_json(index).get("weight_map", {}).values())
        yield from (f"{shard}, named in {index.name}" for shard in sorted(shards) if not (folder / shard).is_file())
    if not any(_stats(folder, ("tokenizer.json", "*.model", "vocab.json", "vocab.txt"))):
        yield "a tokenizer (tokenizer.json, *.model or vocab.json)"
    if not any(_stats(folder, ("processor_config.json", "preprocessor_config.json"))):
        yield "an image processor (preprocessor_config.json or processor_config.json)"


def _is_known(model_type: str | None) -> bool:
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES  # half a second, and no torch

    return model_type == OVIS2_5 or model_type in CONFIG_MAPPING_NAMES


def _from_hub(checkpoint: str) -> Path:
    """Local copy of the files directly in a hub repository, or in one folder of it."""
    name = HUB_NAME.fullmatch(checkpoint)
    assert name is not None
    prefix = f"{name['folder']}/" if name["folder"] else ""
    wanted, below = [f"{prefix}{pattern}" for pattern in FETCHED], [f"{prefix}*/*"]
    try:
        folder = fetch_from_hub(name["repository"], "model", wanted, below) / prefix
    except OSError as error:
        raise CallerError(f"checkpoint {checkpoint!r} is no local folder, and {error}") from None
    if not folder.is_dir():
        raise CallerError(f"checkpoint {checkpoint!r}: {name['repository']} has no folder {name['folder']} on the hub")
    return folder


def _copy_once(uri: str, storage_options: Mapping[str, Any]) -> Path:
    """The local copy of a remote folder; made by one process per node while the others wait.

    It is keyed by the remote listing, so that a changed remote is copied anew. The manifest beside it is written last:
    its existence means that the copy is complete.
    """
    files, root, listing = _remote_listing(uri, storage_options)
    folder = cache_dir() / "checkpoints" / _digest([uri, listing])[:32]
    manifest = folder.with_suffix(".json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not manifest.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, size, _ in listing:
                files.get_file(f"{root}/{name}", str(folder / name))
                if (copied := (folder / name).stat().st_size) != size:
                    raise RunError(f"{uri}/{name} changed while it was copied: {copied} bytes instead of {size}")
            _write_whole(manifest, {"uri": uri, "files": listing})
    return folder


def _remote_listing(uri: str, storage_options: Mapping[str, Any]) -> tuple[Any, str, list[list[Any]]]:
    """File system, path, and (name, size, version) of every wanted file directly in the folder, sorted."""
    from iqa_core.storage.stores import file_system  # loads fsspec, 0.1 s, which a local folder does not need

    try:
        files, root = file_system(uri, storage_options)
        files.invalidate_cache()
        found: Mapping[str, Mapping[str, Any]] = files.find(root, maxdepth=1, detail=True)
    except Exception as error:  # each kind of store has errors of its own, and none of them is ours
        raise CallerError(f"checkpoint {uri} cannot be listed: {type(error).__name__}: {error}") from error
    by_name = {Path(path).name: info for path, info in found.items()}
    listing = [
        [name, info["size"], next((str(info[key]) for key in VERSION_KEYS if info.get(key)), "")]
        for name, info in sorted(by_name.items())
        if _matches(name, FETCHED)
    ]
    if not listing:
        raise CallerError(f"checkpoint {uri} is empty or does not exist")
    return files, root.rstrip("/"), listing


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A lock that one process holds at a time; the kernel frees it when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _stats(folder: Path, patterns: Iterable[str]) -> list[tuple[str, os.stat_result]]:
    wanted = tuple(patterns)
    return [(p.name, p.stat()) for p in sorted(folder.iterdir()) if p.is_file() and _matches(p.name, wanted)]


def _digest_of(folder: Path, patterns: Iterable[str]) -> str:
    return _digest([[name, _file_digest(folder / name)] for name, _ in _stats(folder, patterns)])


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
