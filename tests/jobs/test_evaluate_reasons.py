"""The evaluation of reasons as a user runs it: captions alone, people's texts, the matrix, the sheet; what is refused.

Tests jobs/evaluation/judges.py, jobs/evaluation/reasons.py, jobs/evaluation/reasons_job.py,
jobs/evaluation/reasons_report.py and jobs/evaluation/said.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.demo.corpus import Extras, write_scenes
from iqa_core.errors import CallerError
from iqa_core.reasons.ratings import read_sheet
from iqa_core.records import Assessment
from iqa_core.written.columns import WrittenColumns
from jobs.evaluation.said import Said, caption_reader, rated_captions
from tests.jobs.test_evaluate_assessor import evaluated, refused
from tests.reasons.texts_models import save_tiny_texts_model
from tests.selection.score_tables import write_score_table

pytestmark = pytest.mark.slow

FAKE = ("--assessor.checkpoint", "fake:")
PERCEPTION = (*FAKE, "--rubric", "interior-perception-v1")
SAMPLED = """
[decoding]
samples = 3
temperature = 1.0
max_new_tokens = 256
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reasons") / "rooms"
    write_scenes(folder, 12, seed=4, extras=Extras(texts=True))
    return folder


def quality(rooms: Path) -> tuple[str, ...]:
    return ("--annotations", str(rooms / "quality.csv"), "--resamples", "0")


def test_captions_alone_stand_beside_images_on_the_same_opinions(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fake's captions name the nearest of five levels: what is read from them is the rounded score."""
    cut = ("--assessor.checkpoint", "fake:?cut_share=0.3", "--rubric", "interior-perception-v1")
    found = evaluated(tmp_path, *quality(rooms), *cut, "--caption-only")
    [reasons] = found["reasons"]
    own, scored = reasons["caption_only"], found["agreement"]["quality"]["scored"]
    assert 0 < scored < 12
    assert (own["scored"], own["read"], own["both"]) == (scored, scored, scored)
    assert own["image"]["srcc"] == pytest.approx(found["agreement"]["quality"]["srcc"])
    assert own["with_level_words"] == scored
    assert own["with_digits"] == 0
    difference = own["image"]["srcc"]["value"] - own["caption"]["srcc"]["value"]
    assert own["difference"]["srcc"]["value"] == pytest.approx(difference)
    printed = capsys.readouterr().out
    assert "## What captions alone say" in printed
    assert f"On the {scored} images with both numbers" in printed
    assert "| its own caption |" in printed
    results = assess_images(load_assessor("fake:", rubric="interior-perception-v1"), sorted(rooms.glob("*.png")))
    texts = [one.written for one in results if isinstance(one, Assessment)]
    said = {Path(f"{n}"): Said(own.caption, None) for n, own in enumerate(texts) if own is not None}
    reader = caption_reader(load_assessor("fake:", rubric="interior-perception-v1"))
    read = rated_captions(reader, {**said, Path("x"): Said("-", None)})
    assert math.isnan(read.pop(Path("x")))
    for rating, result in zip(read.values(), results, strict=True):
        assert isinstance(result, Assessment)
        assert abs(rating - result.scores_K[0]) <= 0.5 + 1e-6


def test_texts_are_held_against_those_of_people(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People who wrote what the fake writes, and others who wrote the opposite."""
    images = sorted(rooms.glob("*.png"))
    lines = []
    for path, result in zip(
        images, assess_images(load_assessor("fake:", rubric="interior-perception-v1"), images), strict=True
    ):
        assert isinstance(result, Assessment)
        assert result.written is not None
        lines.append({"image": path.name, "rater": "a", "caption": result.written.caption, "reasoning": "dark"})
        lines.append({"image": path.name, "rater": "b", "caption": "A bright hall.", "reasoning": "not dark"})
    lines.append({"image": "other.png", "caption": "nothing"})
    (rooms / "people.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    sheet = tmp_path / "sheet"
    model = save_tiny_texts_model(tmp_path / "tiny-texts")
    flags = ("--chains", rooms / "people.jsonl", "--sheet", sheet, "--texts-model", model)
    found = evaluated(tmp_path, *quality(rooms), *PERCEPTION, *flags)
    [reasons] = found["reasons"]
    caption = reasons["texts"]["caption"]
    assert caption["rouge1"]["images"] == 12
    assert caption["rouge1"]["nearest_rater"]["f1"]["value"] == 1
    assert caption["rouge1"]["all_raters"]["f1"]["value"] == pytest.approx(0.5)
    assert caption["rouge1"]["ceiling"]["f1"]["value"] == 0
    assert caption["meaning"]["nearest_rater"]["f1"]["value"] == pytest.approx(1)
    assert caption["meaning"]["ceiling"]["f1"]["value"] < 0.999
    assert reasons["texts_model"] == {"folder": "tiny-texts", "layer": "last", "max_tokens": 12, "cut": 0}
    assert reasons["texts"]["reasoning"]["contradicted_by_people"]["light"]["contradicted"] == 12
    assert reasons["caption_only"] is None
    printed = capsys.readouterr().out
    assert "## Beside people's texts: caption" in printed
    assert "| BERTScore | images | cosine | precision | recall | f1 |" in printed
    assert "Embeddings of tiny-texts, last layer; 0 texts were cut at\n12 tokens." in printed
    assert "| model, nearest rater | 12 | 1.000 | 1.000 | 1.000 |" in printed
    tasks = json.loads((sheet / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [str(path) for path in images]
    assert tasks[0]["data"]["assessor"] == "fake:, interior-perception-v1"
    tasks[0]["annotations"] = [{"completed_by": 1, "result": [{"from_name": "true", "value": {"rating": 4}}]}]
    (sheet / "filled.json").write_text(json.dumps(tasks))
    assert read_sheet(sheet / "filled.json").unrated == 11


def test_one_answer_stands_beside_the_mean_of_several(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rubric = tmp_path / "sampled.toml"
    shipped = Path(__file__).parents[2] / "iqa_core" / "rubrics" / "written" / "interior-written-v1.toml"
    rubric.write_text(shipped.read_text().partition("[decoding]")[0] + SAMPLED)
    chains = ("--chains", rooms / "chains.jsonl")
    found = evaluated(tmp_path, *quality(rooms), *FAKE, "--rubric", rubric, *chains)
    [reasons] = found["reasons"]
    own = reasons["sampling"]["quality"]
    assert (own["samples"], own["images"]) == (3, 12)
    assert own["mean_srcc"]["value"] == pytest.approx(found["agreement"]["quality"]["srcc"]["value"])
    assert own["one_srcc"]["value"] != own["mean_srcc"]["value"]
    words = reasons["texts"]["reasoning"]["rouge1"]
    assert words["samples"] == 36
    assert 0 < words["all_samples"]["f1"]["value"] < 1
    assert reasons["texts"].keys() == {"reasoning"}, "the grammar has no caption"
    printed = capsys.readouterr().out
    assert "the same, mean of 3 answers" in printed
    assert "## One answer and the mean of several" in printed


def test_the_matrix_and_an_assessor_that_was_asked_for_one_attribute(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table whose scores are the opinions, but for lighting, which repeats harmony; alone, lighting is right."""
    truths: dict[str, dict[str, float]] = {}
    for line in (rooms / "annotations.csv").read_text().splitlines()[1:]:
        image, dimension, mos = line.split(",")[:3]
        truths.setdefault(image, {})[dimension] = float(mos)
    names = tuple(next(iter(truths.values())))
    table = write_score_table(
        tmp_path / "scores",
        [{"key": image, **of, "lighting": of["harmony"]} for image, of in truths.items()],
        dimensions=names,
    )
    alone = write_score_table(
        tmp_path / "alone",
        [{"key": image, "lighting": of["lighting"]} for image, of in truths.items()],
        dimensions=("lighting",),
    )
    given = ("--annotations", rooms / "annotations.csv", "--scores", table, "--resamples", "0", "--matrix")
    found = evaluated(tmp_path, *given, "--alone", f"lighting=scores:{alone}")
    [reasons] = found["reasons"]
    assert reasons["matrix"]["mixed_up"] == ["lighting"]
    assert reasons["alone"]["mixed_up"] == []
    for name, row in zip(reasons["matrix"]["scored"], reasons["matrix"]["srcc"], strict=True):
        own = "harmony" if name == "lighting" else name
        assert row[reasons["matrix"]["judged"].index(own)] == pytest.approx(1)
    printed = capsys.readouterr().out
    assert "3 of 4 rows have it in their own column; not lighting." in printed
    assert "1 of 1 rows that were asked alone have it in their own column." in printed
    assert "| lighting, asked alone |" in printed
    assert "--alone noise=x: it is ATTRIBUTE=" in refused(*given, "--alone", "noise=x")
    assert "--alone is a row of the matrix" in refused(*given[:-1], "--alone", f"lighting=scores:{alone}")
    assert "--matrix: the opinions are about layout alone" in refused(*given, "--dimension", "layout")


def test_texts_of_a_score_table(rooms: Path, tmp_path: Path) -> None:
    """The first answers' texts are in the table, and nothing of a model is asked again."""
    said = [f"room {n}" for n in range(12)]
    rows = [
        {"key": path.name, "quality": 1 + n / 3, "written_caption": said[n], "written_reasoning": None}
        for n, path in enumerate(sorted(rooms.glob("*.png")))
    ]
    table = write_score_table(tmp_path / "scores", rows, dimensions=("quality",), written=WrittenColumns())
    chains = [{"image": row["key"], "caption": "room 3"} for row in rows]
    (rooms / "threes.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in chains))
    given = (*quality(rooms), "--scores", table, "--chains", rooms / "threes.jsonl")
    [reasons] = evaluated(tmp_path, *given)["reasons"]
    own = reasons["texts"]["caption"]["rouge1"]
    assert own["all_raters"]["recall"]["value"] == pytest.approx((11 * 0.5 + 1) / 12)
    assert (own["ceiling_images"], reasons["texts"]["caption"]["contradicted"]) == (0, {})
    assert "--caption-only asks the model again" in refused(*given, "--caption-only")


def test_what_is_refused_before_anything_is_scored(rooms: Path, tmp_path: Path) -> None:
    given, chains = quality(rooms), ("--chains", rooms / "chains.jsonl")
    assert "interior-written-v1 have no caption" in refused(
        *given, *FAKE, "--rubric", "interior-written-v1", "--caption-only"
    )
    levels = ("--annotations", rooms / "annotations.csv", *FAKE, *chains)
    assert "--chains: interior-v1 is no written rubric" in refused(*levels)
    assert "--texts-model compares texts" in refused(*given, *PERCEPTION, "--texts-model", tmp_path)
    assert "it has no config.json" in refused(*given, *PERCEPTION, *chains, "--texts-model", tmp_path)
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text(json.dumps({"image": "scene-000000.png", "caption": "A hall."}))
    assert "none of their 1 images is one of the annotations'" in refused(*given, *PERCEPTION, "--chains", elsewhere)
    captions = f"{elsewhere}?images={rooms}"
    assert "the model writes reasoning, and no person wrote that" in refused(
        *given, *FAKE, "--rubric", "interior-written-v1", "--chains", captions
    )
    elsewhere.write_text(json.dumps({"image": "scene-000000.png", "caption": "模糊"}))
    assert "has no word of Latin letters" in refused(*given, *PERCEPTION, "--chains", f"{elsewhere}?images={rooms}")


def test_an_engine_that_cannot_be_asked_without_an_image_is_refused() -> None:
    with pytest.raises(CallerError, match="--caption-only: this engine writes about images alone"):
        caption_reader(object())  # type: ignore[arg-type]
