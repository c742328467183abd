"""What docs/serve.md tells people to run, run."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from iqa_core.demo.flaws import cell, make_flawed_scene
from serve.errors import CODES
from serve.settings import ServeSettings
from tests.corpora import tiny_png
from tests.serve.conftest import BY_HAPROXY, BY_OWN_PROXY, HEADS_FIRST
from tests.serve.local import listening

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
ASK = (ROOT / "docs" / "ask.md").read_text(encoding="utf-8")
[QUESTION] = re.findall(r"^### Questions in words\n(.*?)^###", PAGE, re.DOTALL | re.MULTILINE)
[PARTS] = re.findall(r"^### Parts of images\n(.*?)^###", PAGE, re.DOTALL | re.MULTILINE)
URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an endpoint with the rubrics that the page starts one with."""
    [rubric] = re.findall(r"^```toml\n(# faithful.toml\n.*?)^```$", ASK, re.DOTALL | re.MULTILINE)
    folder = tmp_path_factory.mktemp("rubrics")
    (folder / "faithful.toml").write_text(rubric)
    [names] = re.findall(r"^\$ serve run serve.app:app rubrics=(.*)$", PAGE, re.MULTILINE)
    with listening(rubrics=names.replace("faithful.toml", str(folder / "faithful.toml")), fusion=None) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b", "c", "d", "room"):
        (tmp_path / f"{name}.png").write_bytes(tiny_png(ord(name[0])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("Makefile", BY_OWN_PROXY | HEADS_FIRST),
        ("cluster/Dockerfile", BY_OWN_PROXY),
        ("docs/serve.md", BY_OWN_PROXY | BY_HAPROXY),
    ],
)
def test_servings_environment_is_that_of_the_tests_wherever_it_is_set(place: str, variables: dict[str, str]) -> None:
    text = (ROOT / place).read_text(encoding="utf-8")
    assert dict(re.findall(r"(RAY_SERVE_\w+)=([\w.:]+)", text)) == variables


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_the_python_examples_run(block: str, url: str, folder: Path) -> None:
    names: dict[str, object] = {}
    exec(block.replace(URL, url), names)
    client = names["client"]
    client.close()  # type: ignore[attr-defined]
    assert names.get("best", "a.png") in ("a.png", "b.png", "c.png", "d.png")


def printed_by(command: str, url: str) -> str:
    done = subprocess.run(["bash", "-c", command.replace(URL, url)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "command", re.findall(r"^\$ (curl .*)$", PAGE.replace(QUESTION, "").replace(PARTS, ""), re.MULTILINE)
)
def test_the_curl_examples_run(command: str, url: str, folder: Path) -> None:
    assert '"status": "scored"' in printed_by(command, url)


def test_a_question_in_words_is_answered_as_the_page_says(folder: Path) -> None:
    [asked] = re.findall(r"^\$ (curl .*)$", QUESTION, re.MULTILINE)
    [answer] = re.findall(r"^```json\n(.*?)^```$", QUESTION, re.DOTALL | re.MULTILINE)
    checkpoint, rubric = re.findall(r"checkpoint=(\S+) rubric=(\S+)$", QUESTION, re.MULTILINE)[0]
    with listening(assessor={"checkpoint": checkpoint}, rubric=rubric, fusion=None) as url:
        found, shown = json.loads(printed_by(asked, url)), json.loads(answer)
    assert {**found, "fingerprint": ""} == {**shown, "fingerprint": ""}  # which changes with the rubric's words


@pytest.mark.slow
def test_parts_of_an_image_have_the_scores_that_the_page_shows(folder: Path) -> None:
    """Of the room that docs/ground.md asks about in a notebook."""
    room = make_flawed_scene(22, 6, region=cell(0, 1, 2), kind="mix").scene.pixels_HWC
    Image.fromarray(room).save(folder / "room.png")
    [asked] = re.findall(r"^\$ (curl .*)$", PARTS, re.MULTILINE)
    [answer] = re.findall(r"^```json\n(.*?)^```$", PARTS, re.DOTALL | re.MULTILINE)
    with listening(assessor={"checkpoint": "demo", "threads": 1}, fusion=None) as url:
        found, shown = json.loads(printed_by(asked, url)), json.loads(answer)
    scores = []
    for one in (found, shown):  # apart, for a machine's rounding may change them
        part = one["results"][0]["dimensions"]["distortion"]
        own = [part.pop("score"), *itertools.chain(*part.pop("cells")), part["regions"][0].pop("score")]
        scores.append([*own, one["results"][0]["boxes"][0]["scores"].pop("distortion")])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert found == shown


def test_the_settings_and_statuses_that_are_named_exist() -> None:
    known = set(ServeSettings.model_fields) | {"assessor.checkpoint", "assessor.batch_tokens"}
    for name in ("uri_allow", "assessor.checkpoint", "assessor.batch_tokens"):
        assert f"`{name}" in PAGE
        assert name in known
    rows = re.findall(r"^\| ((?:\d{3}(?:, )?)+) \|", PAGE, re.MULTILINE)
    named = {int(status) for row in rows for status in row.split(", ")}
    assert named - {200} <= set(CODES)
    assert {401, 403, 413, 415, 422, 429, 503} <= named
