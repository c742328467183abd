"""A kustomization's folder -> the objects that `kubectl kustomize` makes of it, as far as ours need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Object = dict[str, Any]

KEYS = frozenset("apiVersion kind resources labels images generatorOptions configMapGenerator patches".split())


def built(folder: Path) -> list[Object]:
    """Resources, generated, patched, labelled, their images named. Raises on whatever does not fit together."""
    steps: Object = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    if unknown := set(steps) - KEYS:
        raise ValueError(f"{folder}: this reader does not know {sorted(unknown)}")
    objects = [one for name in steps.get("resources", ()) for one in _resource(folder / name)]
    objects += [_config_map(folder, maker) for maker in steps.get("configMapGenerator", ())]
    for patch in steps.get("patches", ()):
        operations = yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8"))
        [position] = [i for i, one in enumerate(objects) if _is(one, patch["target"])]
        objects[position] = jsonpatch.apply_patch(objects[position], operations)
    for labels in steps.get("labels", ()):
        for one in objects:
            one["metadata"].setdefault("labels", {}).update(labels["pairs"])
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in steps.get("images", ())}
    return [_with_images(one, images) for one in objects]


def _resource(path: Path) -> Iterator[Object]:
    if path.is_dir():
        yield from built(path)
    else:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def _config_map(folder: Path, maker: Object) -> Object:
    data = {name: (folder / name).read_text(encoding="utf-8") for name in maker["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": maker["name"]}, "data": data}


def _is(one: Object, target: Object) -> bool:
    return (one["kind"], one["metadata"]["name"]) == (target["kind"], target["name"])


def _with_images(value: Any, images: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_images(one, images) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: images.get(inner, inner) if key == "image" else _with_images(inner, images) for key, inner in value.items()
    }
