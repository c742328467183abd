"""Opinions on images with texts, against assessors and score tables of rubrics with slots and statements."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.corpus.slot_columns import SlotColumns
from iqa_core.demo.corpus import write_scenes
from iqa_core.opinions.opinion import CUT_TEXT
from iqa_core.questions import own_scales
from iqa_core.records import Assessment
from iqa_core.slots import TextLimits
from tests.jobs.test_evaluate_assessor import evaluated, refused
from tests.selection.score_tables import write_score_table
from tests.unlike import ASKING, ASKING_TOML

CAPTIONS = ("a cat", "a red lamp", "two dogs on a sofa", "nothing")


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    write_scenes(tmp_path / "scenes", 6, seed=3)
    (tmp_path / "asking.toml").write_text(ASKING_TOML)
    return sorted((tmp_path / "scenes").glob("*.png"))


def test_every_text_is_asked_about_and_figures_are_in_the_dimensions_own_range(
    scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opinions are the fake assessor's own scores."""
    asked = [(path, caption) for path in scenes for caption in CAPTIONS]
    texts = [{"prompt": caption, "style": "oil"} for _, caption in asked]
    lines = ["image,caption,style,faithful,dog,layout"]
    assessor = load_assessor("fake:", rubric=str(tmp_path / "asking.toml"))
    for (path, caption), result in zip(asked, assess_images(assessor, [p for p, _ in asked], texts), strict=True):
        assert isinstance(result, Assessment)
        values = (result.scores_K[0], result.probs_K[2][0], result.scores_K[1])
        lines.append(",".join([str(path), caption, "oil", *map(str, values)]))
    (tmp_path / "opinions.csv").write_text("\n".join(lines))
    annotations = f"{tmp_path / 'opinions.csv'}?dimensions=faithful,dog,layout&range=own"
    given = ("--annotations", annotations, "--rubric", tmp_path / "asking.toml", "--assessor.checkpoint", "fake:")
    found = evaluated(tmp_path, *given, "--slot", "prompt=caption")
    for name in ("faithful", "dog", "layout"):
        assert found["agreement"][name]["scored"] == len(asked)
        assert found["agreement"][name]["plcc"]["value"] == pytest.approx(1), name
    assert found["auc"].keys() == {"faithful", "dog"}
    assert found["about"]["ranges"] == "faithful from 0 to 1, dog from 0 to 1"
    printed = capsys.readouterr().out
    assert "| dimension | scored | failed | PLCC | fitted | SRCC | KRCC | AUC | RMSE | MAE | one rater |" in printed
    assert "in units of a dimension's own range" in printed
    assert "line 2: no column prompt with texts for {prompt}" in refused(*given)
    against = ("--annotations", f"{tmp_path / 'opinions.csv'}?dimensions=layout", "--assessor.checkpoint", "fake:")
    cut = ("--slot", "prompt=caption", "--slot-chars", 5, "--slot-too-long", "cut")
    assert evaluated(tmp_path, *given, *cut)["dropped"] == {CUT_TEXT: len(scenes) * 3 * 3}
    assert f"{len(scenes) * 3 * 3} opinions on {CUT_TEXT}" in capsys.readouterr().out
    others = ("--rubric", "interior-v2", "--against", f"fake:?rubric={tmp_path / 'asking.toml'}")
    assert "opinions come without a text for {prompt}" in refused(*against, *others)


def test_errors_are_in_units_of_the_range(tmp_path: Path) -> None:
    """A table whose scores are all half the range off: the fit, a logistic, fails on constant ones."""
    rows = [{"key": f"{n}.png", "faithful": 0.5, "layout": 3.0, "things": 0.5} for n in range(6)]
    table = write_score_table(tmp_path / "scores", rows, dimensions=ASKING.names, scales=own_scales(ASKING.columns))
    lines = [f"{n}.png,{name},{n % 2 * 4 + 1}" for n in range(6) for name in ("faithful", "layout")]
    (tmp_path / "opinions.csv").write_text("\n".join(["image,dimension,mos", *lines]))
    found = evaluated(tmp_path, "--annotations", tmp_path / "opinions.csv", "--scores", table)
    assert {name: figures["mae"]["value"] for name, figures in found["agreement"].items()} == pytest.approx(
        {"faithful": 0.5, "layout": 2.0, "overall": 2.0}
    )
    assert found["auc"]["faithful"]["value"] == 0.5
    (tmp_path / "dog.csv").write_text("image,dimension,mos\n0.png,dog,1\n")
    said = refused("--annotations", tmp_path / "dog.csv", "--scores", table)
    assert "in place of the table, which has the statements of things as lists without names" in said


def test_rows_of_one_image_are_told_apart_by_their_texts(tmp_path: Path) -> None:
    rows = [
        {"key": "a.png", "faithful": n / 4, "layout": 3.0, "things": 0.5, "prompt": f" {caption} ", "style": "oil"}
        for n, caption in enumerate(CAPTIONS)
    ]
    table = write_score_table(
        tmp_path / "scores",
        rows,
        pa.schema([("prompt", pa.string()), ("style", pa.string())]),
        dimensions=ASKING.names,
        scales=own_scales(ASKING.columns),
        slots=SlotColumns({"prompt": "prompt", "style": "style"}),
    )
    lines = [f"a.png,faithful,{n / 4},{caption}" for n, caption in enumerate(CAPTIONS)]
    lines.append("a.png,faithful,1,another text")
    (tmp_path / "opinions.csv").write_text("\n".join(["image,dimension,mos,caption", *lines]))
    given = ("--annotations", f"{tmp_path / 'opinions.csv'}?range=own", "--scores", table)
    found = evaluated(tmp_path, *given, "--slot", "prompt=caption")
    assert found["agreement"]["faithful"]["plcc"]["value"] == pytest.approx(1)
    assert found["failures"] == {"not in the score table": 1}
    assert "--slot slot=column of the annotations tells texts apart" in refused(*given)
    assert "leave them out with --scores" in refused(*given, "--slot-chars", 9)


def test_texts_of_a_table_reach_what_stands_beside_it_as_the_table_had_them(scenes: list[Path], tmp_path: Path) -> None:
    """They are longer than a text may be by default, and the other table was asked without the style."""
    long = {"prompt": "a" * 2500, "style": "oil"}

    def table(name: str, *slots: str) -> Path:
        rows = [
            {"key": str(path), "faithful": n / 6, "layout": 3.0, "things": 0.5, **{slot: long[slot] for slot in slots}}
            for n, path in enumerate(scenes)
        ]
        return write_score_table(
            tmp_path / name,
            rows,
            pa.schema([(slot, pa.string()) for slot in slots]),
            dimensions=ASKING.names,
            scales=own_scales(ASKING.columns),
            slots=SlotColumns({slot: slot for slot in slots}, TextLimits(3000)),
        )

    lines = [f"{path},{n % 2},{long['prompt']},oil" for n, path in enumerate(scenes)]
    (tmp_path / "opinions.csv").write_text("\n".join(["image,faithful,prompt,style", *lines]))
    given = ("--annotations", f"{tmp_path / 'opinions.csv'}?dimensions=faithful&range=own")
    first = ("--scores", table("both", "prompt", "style"), "--slot", "prompt=prompt", "--slot", "style=style")
    others = (f"fake:?rubric={tmp_path / 'asking.toml'}", f"scores:{table('prompt', 'prompt')}")
    found = evaluated(tmp_path, *given, *first, *(part for other in others for part in ("--against", other)))
    assert [found["failures"], *(other["failures"] for other in found["against"])] == [{}, {}, {}]
