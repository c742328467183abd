"""SA-BENCH's layout -> opinions: means as they are, single raters, and images where they lie."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.sa_bench import image_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "SA-BENCH"
    write_scenes(folder, 40, seed=3, format="sa-bench", size=64, image_format="jpeg")
    return folder


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_all_dimensions_of_a_split_are_read_and_every_image_is_there(made: Path) -> None:
    found = load_opinions([f"sa-bench:{made}?split=test"])
    assert found.dimensions == ("distortion", "harmony", "layout", "lighting")
    assert (len(found.rows), found.dropped, found.datasets) == (8, {}, ("SA-BENCH",))
    assert all(path.is_file() for path in found.images)
    assert load_opinions([f"sa-bench:{made / 'annotations'}?split=test"]).rows == found.rows
    train = load_opinions([f"sa-bench:{made}?split=train"])
    assert not set(train.images) & set(found.images)


def test_one_dimension_or_one_file_can_be_chosen(made: Path) -> None:
    one = load_opinions([f"sa-bench:{made}?split=full&dimension=layout"])
    assert one.dimensions == ("layout",)
    assert load_opinions([f"sa-bench:{made}/annotations/layout_10_full.csv"]).rows == one.rows


def test_the_mean_is_not_rounded_and_the_raters_give_deviation_and_number(tmp_path: Path) -> None:
    path = write(
        tmp_path / "annotations" / "lighting_3k_test.csv",
        "id,lighting_score_a,lighting_score_b,lighting_score_c,lighting_score_mos,lighting_score_mos_int,model",
        "0012,3,4,4,3.6666666666666665,4,flux",
        "x-1,2,,,2,2,",
        "y,,,,3.5,4,",
    )
    first, second, third = load_opinions([f"sa-bench:{path}"]).rows
    assert (first.mos, first.num_raters, first.raters, first.group) == (3.6666666666666665, 3, (3, 4, 4), "flux")
    assert first.std == pytest.approx(statistics.stdev((3, 4, 4)))
    assert (first.image, first.path) == (
        "images/lighting/images/0012.jpg",
        tmp_path / "images" / "lighting" / "images" / "0012.jpg",
    )
    assert (second.std, second.num_raters, second.group) == (None, 1, None)
    assert (third.std, third.num_raters, third.raters) == (None, None, ())


def test_lines_of_prompts_have_the_rounded_mean(made: Path) -> None:
    lines = load_opinions([f"sa-bench:{made}/annotations/layout_10_full_prompt4.jsonl"])
    table = {row.path: row for row in load_opinions([f"sa-bench:{made}/annotations/layout_10_full.csv"]).rows}
    assert lines.images == tuple(table)
    for row in lines.rows:
        assert row.mos == int(row.mos)
        assert abs(row.mos - table[row.path].mos) <= 0.5


def test_a_path_may_begin_with_the_name_of_the_data_set() -> None:
    folder = Path("/data/SA-BENCH")
    assert image_path("SA-BENCH/images/layout/images/1.jpg", folder) == folder / "images/layout/images/1.jpg"
    assert image_path("images/layout/images/1.jpg", folder) == folder / "images/layout/images/1.jpg"
    assert image_path("/elsewhere/1.jpg", folder) == Path("/elsewhere/1.jpg")
    assert image_path("SA-BENCHMARK/1.jpg", folder) == folder / "SA-BENCHMARK/1.jpg"


def test_a_row_without_a_mean_is_dropped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "layout_1_test.csv", "id,layout_score_mos", "a,3", "b,", "c,nan", "a,4")
    found = load_opinions([f"sa-bench:{path}"])
    assert [(row.image, row.mos) for row in found.rows] == [("images/layout/images/a.jpg", 3)]
    assert found.dropped == {"no opinion": 2, "a second opinion on the same image and dimension": 1}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["id,score", "a,3"], r"has no column layout_score_mos; it has id, score"),
        (
            ["id,layout_score_mos", "a,3", "b,62"],
            r"line 3: layout_score_mos: 62 is outside of 1 \(worst\) to 5 \(best\)",
        ),
        (["id,layout_score_1,layout_score_mos", "a,0,3"], r"line 2: layout_score_1: 0 is outside"),
        (["id,layout_score_mos", "a,good"], r"line 2: layout_score_mos is 'good'; a number is wanted"),
        (["id,layout_score_mos", ",3"], "line 2: id is ''; a text is wanted"),
        (["id,layout_score_mos", "a,3,4"], "line 2: 3 fields, but the header has 2"),
        (["id,layout_score_mos", "a,"], r"holds no opinion \(1 with no opinion\)"),
        (["id,layout_score_mos"], r"holds no opinion \(no rows\)"),
        (["id,id", "a,b"], "has id more than once"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "layout_1_test.csv", *lines)
    with pytest.raises(CallerError, match=said):
        load_opinions([f"sa-bench:{path}"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "say which split"),
        ("?split=validation", "split: Input should be 'train', 'test' or 'full'"),
        ("?split=test&dimension=colour", r"has no annotations colour_\*_test.csv"),
        ("?split=test&prompt=4", "prompt: Extra inputs .* options are images, dataset, group, split, dimension"),
        ("/annotations/layout_10_full.csv?split=full", "says its dimension and split"),
        ("/images", r"say which split"),
        ("/nothing?split=test", "neither a local folder nor the hub id"),
    ],
)
def test_what_cannot_be_found_is_refused(options: str, said: str, made: Path) -> None:
    with pytest.raises(CallerError, match=said):
        load_opinions([f"sa-bench:{made}{options}"])
