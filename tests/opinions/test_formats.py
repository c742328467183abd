"""Annotation files that people have -> opinions on 1..5, each format with its traps.

Tests iqa_core/opinions/deqa.py, iqa_core/opinions/load.py, iqa_core/opinions/opinion.py, iqa_core/opinions/options.py,
iqa_core/opinions/pyiqa.py, iqa_core/opinions/q_align.py, iqa_core/opinions/rows.py, iqa_core/opinions/spaq.py and
iqa_core/opinions/table.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import NumberRange, Opinion


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def read(address: object) -> tuple[Opinion, ...]:
    return load_opinions([str(address)]).rows


def test_a_scale_may_run_down_and_its_deviation_goes_with_it() -> None:
    assert NumberRange(0, 100).mos(75, "x") == 4
    assert NumberRange(100, 0).mos(75, "x") == 2
    assert NumberRange(1, 0).std(0.1, "x") == NumberRange(0, 1).std(0.1, "x") == pytest.approx(0.4)
    with pytest.raises(CallerError, match=r"x: -1 is outside of 100 \(worst\) to 0 \(best\)"):
        NumberRange(100, 0).mos(-1, "x")


LONG = [
    {"image": "a.jpg", "dimension": "layout", "mos": 3.5, "std": 0.5, "count": 4, "group": "g"},
    {"image": "a.jpg", "dimension": "harmony", "mos": 2.0},
    {"image": "sub/b.jpg", "dimension": "layout", "mos": None},
]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_our_own_table_is_read_from_any_kind_of_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"opinions.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(LONG), path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, LONG)))
    else:
        path.write_text(
            "image,dimension,mos,std,count,group\na.jpg,layout,3.5,0.5,4,g\na.jpg,harmony,2,,,\nsub/b.jpg,layout,,,,\n"
        )
    found = load_opinions([str(path)])
    assert found.rows == (
        Opinion("a.jpg", tmp_path / "a.jpg", "layout", 3.5, "opinions", std=0.5, num_raters=4, group="g"),
        Opinion("a.jpg", tmp_path / "a.jpg", "harmony", 2.0, "opinions"),
    )
    assert found.dropped == {"no opinion": 1}


def test_a_wide_table_names_its_dimensions_and_its_scale(tmp_path: Path) -> None:
    path = written(tmp_path / "w.csv", "image,layout,layout_std,harmony,seed\na.jpg,75,10,0,1\nb.jpg,,,100,2\n")
    found = load_opinions([f"{path}?dimensions=layout,harmony&worst=0&best=100&images=/pictures&dataset=mine"])
    assert [(row.path, row.dimension, row.mos, row.std) for row in found.rows] == [
        (Path("/pictures/a.jpg"), "layout", 4.0, pytest.approx(0.4)),
        (Path("/pictures/a.jpg"), "harmony", 1.0, None),
        (Path("/pictures/b.jpg"), "harmony", 5.0, None),
    ]
    assert found.datasets == ("mine",)


def test_the_annotations_of_a_scene_corpus_are_such_a_table(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 3, seed=1, size=64)
    found = load_opinions([f"{tmp_path}/scenes/annotations.csv"])
    assert (len(found.rows), len(found.images)) == (12, 3)
    assert all(path.is_file() for path in found.images)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("image,dimension,mos\na,b,61\n", "", r"line 2: mos: 61 is outside of 1 .*\?worst=0&best=100"),
        ("image,dimension,mos\na,b,3\n", "?worst=0", "worst and best are two different numbers"),
        ("image,dimension,mos\na,b,3\n", "?worst=5&best=5", "worst and best are two different numbers"),
        ("image,dimension,mos\na,b,3\n", "?best=x", "best: Input should be a valid number"),
        ("image,dimension,mos,std\na,b,3,-1\n", "", "std: -1 is no standard deviation"),
        ("image,dimension,mos,count\na,b,3,0\n", "", "count is 0; a number of raters is 1 or more"),
        ("image,dimension,mos,count\na,b,3,2.5\n", "", "count is 2.5; a number of raters is 1 or more"),
        ("image,dimension,mos\na,b,inf\n", "", "mos is 'inf'; a finite number is wanted"),
        ("image,layout\na,3\n", "", r"its columns are image, layout; .* or \?dimensions=a,b"),
        ("image,layout\na,3\n", "?dimensions=harmony", "no column harmony; there are image, layout"),
        ("file,dimension,mos\na,b,3\n", "", "image is None; a text is wanted"),
        ('image,dimension,mos\n"a,b,3\n', "", "no CSV"),
        ("image,dimension,mos\n\n", "", "holds no opinion"),
    ],
)
def test_a_table_at_fault_is_refused_with_its_line(content: str, options: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", content)
    with pytest.raises(CallerError, match=said):
        load_opinions([f"{path}{options}"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", "", "are .csv, .jsonl, .json or .parquet files"),
        ("t.json", "{}", "no JSON list of objects"),
        ("t.json", "[1]", "item 1 is no JSON object"),
        ("t.jsonl", "{", "line 1 is not JSON"),
        ("t.parquet", "PAR2", "no Parquet file"),
        ("t.jsonl", '{"image": "a", "dimension": "b", "mos": true}', "mos is True; a finite number"),
        ("t.jsonl", '{"image": "a", "dimension": "b", "mos": [3]}', r"mos is \[3\]; a number is wanted"),
    ],
)
def test_a_file_of_another_kind_is_refused(name: str, content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=said):
        read(written(tmp_path / name, content))


def test_a_file_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="cannot be read"):
        read(tmp_path / "none.csv")
    with pytest.raises(CallerError, match="given twice"):
        read("a.csv?worst=1&worst=2")


def test_files_are_put_together_and_an_image_is_judged_once_per_dimension(tmp_path: Path) -> None:
    one = written(tmp_path / "one.csv", "image,dimension,mos\na,x,3\n")
    two = written(tmp_path / "two.csv", "image,dimension,mos\na,x,4\na,y,5\n")
    found = load_opinions([str(one), str(two)])
    assert [(row.dimension, row.mos, row.dataset) for row in found.rows] == [("x", 3, "one"), ("y", 5, "two")]
    assert found.dropped == {"a second opinion on the same image and dimension": 1}


DEQA = {"id": "k", "image": "KONIQ/1.jpg", "gt_score": 71.3, "gt_score_norm": 3.85, "std": 9.0, "std_norm": 0.36}


def test_deqa_scores_are_the_normalised_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "test.json", [DEQA, {**DEQA, "image": "KONIQ/2.jpg", "level_probs": [0, 0, 0, 1, 0]}])
    first, second = read(f"deqa:{path}?images=/data")
    assert first == Opinion("KONIQ/1.jpg", Path("/data/KONIQ/1.jpg"), "quality", 3.85, "test", std=0.36)
    assert second.mos == 3.85
    written(path, [{name: value for name, value in DEQA.items() if "norm" not in name}])
    with pytest.raises(CallerError, match="item 1: no gt_score_norm"):
        read(f"deqa:{path}")


def test_q_align_scores_may_be_texts_or_stand_in_the_id_alone(tmp_path: Path) -> None:
    rows = [
        {"id": "x.jpg->68.7", "image": "x.jpg", "gt_score": 68.7},
        {"img_path": "y.jpg", "gt_score": "25"},
        {"id": "I01->a.png->50.0", "image": "z.jpg"},
    ]
    path = written(tmp_path / "q.json", rows)
    found = read(f"q-align:{path}?worst=0&best=100&dimension=aesthetics")
    assert [(row.image, row.dimension, row.mos) for row in found] == [
        ("x.jpg", "aesthetics", pytest.approx(3.748)),
        ("y.jpg", "aesthetics", 2.0),
        ("z.jpg", "aesthetics", 3.0),
    ]
    with pytest.raises(CallerError, match="does not say what range"):
        read(f"q-align:{path}")
    with pytest.raises(CallerError, match=r"outside of 1 \(worst\) to 5 \(best\)"):
        read(f"q-align:{path}?worst=1&best=5")
    written(path, [{"id": "x.jpg", "image": "x.jpg"}])
    with pytest.raises(CallerError, match="neither gt_score nor a score behind ->"):
        read(f"q-align:{path}?worst=0&best=1")


def test_pyiqa_columns_count_by_position(tmp_path: Path) -> None:
    path = written(
        tmp_path / "k.csv", "img_name,mos,std,split,ratio802010_seed123\n1.jpg,75,0.5,train,1\n2.jpg,0,1,test,2\n"
    )
    first, second = read(f"pyiqa:{path}?set=koniq10k")
    assert (first.mos, first.dataset, first.group) == (4.0, "koniq10k", None)
    assert first.std == 0.5, "KonIQ's deviations are those of votes from 1 to 5"
    assert second.mos == 1.0


@pytest.mark.parametrize(
    ("set", "lines", "mos", "std"),
    [
        # header and first row of the file as pyiqa publishes it
        (
            "koniq10k",
            "img_name,mos,std,split,c1,c2\n10004473376.jpg,77.3836206897,0.527277894494,training,0.0,0.0",
            4.0953,
            0.5273,
        ),
        ("livec", "img_name,mos,std\nt1.bmp,63.963406174124174,18.376200073180403", 3.5585, 0.7350),
        ("kadid10k", "ref_name,dist_name,dmos,std\nI01.png,I01_01_01.png,4.57,0.496", 4.57, 0.496),
        ("tid2013", "ref_name,dist_name,mos,std\nI01.BMP,I01_01_1.bmp,5.51429,0.13013", 3.4508, None),
        ("tid2008", "ref_name,dist_name,mos,std\nI01.BMP,I01_01_1.bmp,5.9706,0.10593", 3.6536, None),
        ("csiq", "ref_name,dist_name,dmos\n1600.png,1600.AWGN.1.png,0.061989", 4.7520, None),
        ("live", "ref_name,dist_name,mos\nstudentsculpture.bmp,jp2k/img2,28.00384535689855", 3.8798, None),
        ("spaq", "Image name,MOS,Brightness,Colorfulness\n00001.jpg,48.86,47.43,55.57", 2.9544, None),
        ("ava", "img_name,MOS,c1,c2\n1.jpg,5.64,0,1", 3.0622, None),
        ("flive", "img_name/patch_name,mos,split\nblur/a.jpg,77.5,0", 4.1, None),
    ],
)
def test_the_published_files_are_read(set: str, lines: str, mos: float, std: float | None, tmp_path: Path) -> None:
    [found] = read(f"pyiqa:{written(tmp_path / 'meta.csv', lines)}?set={set}")
    assert found.mos == pytest.approx(mos, abs=1e-4)
    assert found.std == (None if std is None else pytest.approx(std, abs=1e-4))


@pytest.mark.parametrize(
    ("options", "lines", "said"),
    [
        # KonIQ's and KADID's own files: a share of votes, and the reference, stand where opinion and name are read
        (
            "?set=koniq10k",
            "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\na.jpg,0,0,25,73,7,105,3.8,0.5,77",
            "image_name, c1",
        ),
        ("?kind=nr&worst=0&best=100", "image_name,c1,c2\na.jpg,0,0", "is it another file"),
        (
            "?set=kadid10k",
            "dist_img,ref_img,dmos,var\nI01_01.png,I01.png,4.57,0.496",
            "a fr file of pyiqa begins with reference",
        ),
        ("?set=koniq10k", "ref_name,dist_name,dmos\na.png,b.png,3", "begins with name, mos"),
        ("?set=koniq10k", "ref_name,mos\na.png,3", "begins with name, mos"),
        (
            "?set=kadid10k",
            "ref_name,dist_name,dmos,std\na.png,b.png,4.57,3",
            "line 2: std: 3 is no standard deviation of ratings from 1 to 5",
        ),
        ("?set=kadid10k", "ref_name,dist_name,dmos,std\na.png,b.png,4.57,-1", "0 or more is wanted"),
        ("?set=kadid10k", "ref_name,dist_name,dmos,std\na.png,b.png,77,1", "line 2: the opinion: 77 is outside of 1"),
        ("?set=koniq10k", "img_name,mos\n" + "a.jpg,3.2\nb.jpg,4.9\n" * 10, "all 20 opinions lie between 3.2 and 4.9"),
    ],
)
def test_another_file_of_a_set_is_refused(options: str, lines: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=said):
        read(f"pyiqa:{written(tmp_path / 'k.csv', lines)}{options}")


def test_without_a_header_the_first_line_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "k.csv", "a.jpg,75,0.5\nb.jpg,50,0.5\n")
    assert [(row.image, row.mos, row.std) for row in read(f"pyiqa:{path}?set=koniq10k")] == [
        ("a.jpg", 4.0, None),
        ("b.jpg", 3.0, None),
    ]


def test_pyiqa_direction_is_the_sets_and_not_the_headers(tmp_path: Path) -> None:
    lines = "ref_img,dist_img,dmos,var\nI01.png,I01_01.png,4.57,0.49\nI01.png,I01_02.png,1,\n"
    best, worst = read(f"pyiqa:{written(tmp_path / 'kadid.csv', lines)}?set=kadid10k")
    assert (best.image, best.mos, best.group) == ("I01_01.png", 4.57, "I01.png")
    assert best.std == pytest.approx(0.7)
    assert (worst.mos, worst.std) == (1.0, None)
    lines = "ref_name,dist_name,dmos,split\nr.png,good.png,0,1\nr.png,bad.png,1,1\n"
    good, bad = read(f"pyiqa:{written(tmp_path / 'csiq.csv', lines)}?set=csiq")
    assert (good.mos, bad.mos, good.std) == (5.0, 1.0, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "does not say what its numbers mean"),
        ("?kind=nr", "does not say what its numbers mean"),
        ("?set=mine", r"\?set= is one of ava, csiq"),
        ("?set=ava&worst=1&best=10", "goes without kind, worst and best"),
        ("?kind=fr&worst=0&best=100", "line 2: 2 fields; a fr file has 3 or more"),
        ("?kind=nr&worst=0&best=9", r"the opinion: 75 is outside of 0"),
    ],
)
def test_pyiqa_without_a_meaning_is_refused(options: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "k.csv", "name,mos\n1.jpg,75\n")
    with pytest.raises(CallerError, match=said):
        read(f"pyiqa:{path}{options}")


def test_spaq_has_several_dimensions_per_image(tmp_path: Path) -> None:
    lines = "Image name,MOS,Brightness,Colorfulness,Contrast,Noisiness,Sharpness\n00001.jpg,50,25,75,100,0,\n"
    found = load_opinions([f"spaq:{written(tmp_path / 's.csv', lines)}?images=TestImage"])
    assert [(row.dimension, row.mos) for row in found.rows] == [
        ("quality", 3.0),
        ("brightness", 2.0),
        ("colorfulness", 4.0),
        ("contrast", 5.0),
        ("noisiness", 1.0),
    ]
    assert found.images == (Path("TestImage/00001.jpg"),)
    assert found.dropped == {"no opinion": 1}
    with pytest.raises(CallerError, match="SPAQ's are Image name, MOS"):
        read(f"spaq:{written(tmp_path / 's.csv', 'name,mos' + chr(10) + 'a,3')}")


@pytest.mark.parametrize(
    ("kind", "name", "content", "options"),
    [
        ("", "a.jsonl", '{"image": "a.jpg", "dimension": "layout", "mos": 3, "style": "rustic"}', ""),
        ("deqa:", "a.json", [{"image": "a.jpg", "gt_score_norm": 3, "style": "rustic"}], ""),
        ("q-align:", "a.json", [{"image": "a.jpg", "gt_score": 3, "style": "rustic"}], "&worst=1&best=5"),
        ("pyiqa:", "a.csv", "name,mos,style\na.jpg,50,rustic\n", "&set=koniq10k"),
        ("spaq:", "a.csv", "Image name,MOS,Style,style\na.jpg,50,classic,rustic\n", ""),
    ],
)
def test_any_column_can_be_the_group(kind: str, name: str, content: Any, options: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, content)
    assert [row.group for row in read(f"{kind}{path}?group=style{options}")] == ["rustic"]
    assert (
        load_opinions([f"{kind}{path}?{options[1:]}" if options else f"{kind}{path}"], "style").rows[0].group
        == "rustic"
    )
    with pytest.raises(CallerError, match="no column colour; there are"):
        read(f"{kind}{path}?group=colour{options}")
