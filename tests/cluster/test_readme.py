"""cluster/README.md -> every command in it exists and takes its flags, and each place needs as few as promised."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from tests.cluster.kustomized import built
from tests.cluster.test_kubernetes import OVERLAYS
from tests.test_docs import ROOT, fenced, table_below

PAGE = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
COMMANDS_AT_MOST = 5
NEEDS_A_CLOUD = {"helm", "kubectl", "docker"}

pytestmark = pytest.mark.slow


def lines() -> Iterator[tuple[str, list[str]]]:
    """First line of the block, and the words of each command in it, as a shell would split them."""
    for block in fenced(PAGE, ""):
        first, *_ = block.splitlines()
        if first.startswith("error:"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for command in shlex.split(line, comments=True) and re.split(r"\s&&\s", line):
                yield first, shlex.split(command, comments=True)


def test_what_needs_a_cloud_says_so() -> None:
    for first, words in lines():
        is_remote = words[0] in NEEDS_A_CLOUD or words[:2] in (["ray", "up"], ["ray", "down"], ["ray", "dashboard"])
        assert first.startswith("# needs ") or not is_remote, words


def test_the_commands_of_ray_and_serve_take_what_they_are_given() -> None:
    from ray.scripts.scripts import cli as ray_cli
    from ray.serve.scripts import cli as serve_cli

    seen = set()
    for _, words in lines():
        if words[0] in ("ray", "serve"):
            found: click.Command = ray_cli if words[0] == "ray" else serve_cli
            rest = words[1 : words.index("--")] if "--" in words else words[1:]
            while isinstance(found, click.Group):
                found, rest = found.commands[rest[0]], rest[1:]
            found.make_context(words[0], ["--", *rest] if rest == ["--"] else rest, resilient_parsing=True)
            known = {option for parameter in found.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("-")} <= known
            assert [w for w in rest if w.endswith(".yaml") and not (ROOT / w).is_file()] == []
            seen.add(found.name)
    assert {"up", "down", "dashboard", "submit", "deploy", "run", "get-auth-token"} <= seen


def test_what_is_applied_and_built_is_there() -> None:
    applied = {words[words.index("-k") + 1] for _, words in lines() if "-k" in words}
    assert applied == {str(path.relative_to(ROOT)) for path in OVERLAYS if path.parent.name == "gpu"}
    [build] = [words for _, words in lines() if words[0] == "docker"]
    dockerfile = (ROOT / build[build.index("-f") + 1]).read_text(encoding="utf-8")
    [argument] = [words.partition("=")[0] for words in build if words.startswith("TORCH_INDEX")]
    assert f"ARG {argument}=" in dockerfile


def test_each_place_takes_five_commands_at_most() -> None:
    for block in fenced(PAGE, ""):
        joined = block.replace("\\\n", " ")
        assert sum(not line.startswith("#") for line in joined.splitlines()) <= COMMANDS_AT_MOST


def test_secrets_in_the_table_are_those_that_the_objects_name() -> None:
    named = {cells[0].strip("`") for cells in table_below(PAGE, "Kubernetes")}
    text = yaml.safe_dump_all([one for path in OVERLAYS for one in built(path)], width=1000)
    referred = set(re.findall(r"secretKeyRef:\s+key: \w+\s+name: (\S+)", text))
    referred |= set(re.findall(r"secretRef:\s+name: (\S+)", text)) | set(re.findall(r"secretName: (\S+)", text))
    assert named == referred


def test_files_in_the_table_are_all_there_are() -> None:
    folder = ROOT / "cluster"
    named = {Path(name) for name in re.findall(r"^\| `(cluster/[^`]+)` \|", PAGE, re.MULTILINE)}
    there = {path for path in folder.iterdir() if path.suffix not in (".md", ".dockerignore")}
    there |= set((folder / "kubernetes").iterdir())
    assert named == {path.relative_to(ROOT) for path in there} - {Path("cluster/kubernetes")}
