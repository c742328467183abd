"""cluster/Dockerfile -> what can be checked of an image without building it."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib

import pytest

from tests.cluster.test_kubernetes import CODE
from tests.test_docs import ROOT

PATH = ROOT / "cluster" / "Dockerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    lines = [line for line in PATH.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def of(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for found, rest in instructions if found == name]


def test_it_copies_what_exists_and_what_is_sent_to_the_builder(instructions: list[tuple[str, str]]) -> None:
    sources = [source for line in of(instructions, "COPY") for source in shlex.split(line)[:-1]]
    assert {"iqa_core", "jobs", "serve", "constraints.txt"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    sent = re.findall(r"^!(.+)$", (PATH.parent / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(sources) == set(sent)
    assert not any(fnmatch.fnmatch(name, "*key*") or name == ".git" for name in sent)


def test_packages_are_pinned_and_extras_exist(instructions: list[tuple[str, str]]) -> None:
    [install] = [line for line in of(instructions, "RUN") if "pip install" in line]
    assert "-c constraints.txt" in install
    assert install.endswith("pip uninstall -y httptools")  # tests/cluster/test_front.py says why
    defaults = dict(line.split("=", 1) for line in of(instructions, "ARG"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(defaults["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    assert defaults["TORCH_INDEX"].endswith("/cpu")
    assert "TORCH_INDEX" in install
    minor = int(defaults["PYTHON_VERSION"].removeprefix("3."))
    assert minor >= int(re.match(r">=3\.(\d+)", project["requires-python"])[1])  # type: ignore[index]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^boto3==", pins, re.MULTILINE)


def test_it_runs_as_nobody_special_in_the_folder_of_the_code(instructions: list[tuple[str, str]]) -> None:
    assert of(instructions, "USER") == ["1000"]
    assert instructions[-1][0] == "CMD"
    assert of(instructions, "WORKDIR") == [CODE.rstrip("/")]
    assert f"PYTHONPATH={CODE.rstrip('/')}" in of(instructions, "ENV")[0]
