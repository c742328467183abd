"""Repositories of a hub on a loopback port -> only the files that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqa_core.hub import HUB_NAME
from tests.hub_server import COMMIT, running_hub

CHECKPOINT = ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "args.json")


def write(root: Path, names: dict[str, str]) -> None:
    for name, content in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize("name", ["org/name", "gaoyuan-ai/SA-IQA-model/sa-iqa-prompt4", "a/b/c/d.e"])
def test_a_repository_or_a_folder_in_it_is_a_name(name: str) -> None:
    found = HUB_NAME.fullmatch(name)
    assert found is not None
    assert "/".join(filter(None, found.groups())) == name


@pytest.mark.parametrize(
    "name", ["org", "./name", "../x", "org/..", "org/name/../x", "org/name/", "/a/b", "a//b", "a b/c"]
)
def test_what_could_leave_a_repository_is_none(name: str) -> None:
    assert HUB_NAME.fullmatch(name) is None


SCRIPT = """
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.errors import CallerError
for name in ["org/bundle/tuned", "org/bundle/none", "org/absent/tuned"]:
    try:
        print(materialise(name))
    except CallerError as error:
        print("refused:", str(error).replace(chr(10), " "))
"""


@pytest.mark.slow
def test_a_folder_of_a_repository_is_a_checkpoint_and_nothing_else_is_fetched(tmp_path: Path) -> None:
    repository = tmp_path / "models" / "org" / "bundle"
    write(repository / "tuned", {name: json.dumps({"of": name}) for name in CHECKPOINT})  # equal bytes are one blob
    write(repository, {"base/model.safetensors": "large", "README.md": "x", "config.json": "{}"})
    write(repository / "tuned", {"pytorch_model.bin": "pickle", "modeling.py": "code", "runs/log.json": "{}"})
    with running_hub(tmp_path) as hub:
        tuned, none, absent = hub.run(SCRIPT, tmp_path / "home").splitlines()
    assert tuned.endswith(f"models--org--bundle/snapshots/{COMMIT}/tuned")
    assert {path.name for path in Path(tuned).iterdir()} == set(CHECKPOINT)
    assert sorted(hub.fetched) == sorted(f"tuned/{name}" for name in CHECKPOINT)
    assert none == "refused: checkpoint 'org/bundle/none': org/bundle has no folder none on the hub"
    assert absent.startswith("refused: checkpoint 'org/absent/tuned' is no local folder, and model 'org/absent' cannot")
