"""The report of a grounding output: its counts are those of the table, and what it draws lies where the cells do.

Tests iqa_core/report/local_scores.py too.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.records import ScoreRange
from iqa_core.report.local_scores import LocalScores
from tests.corpora import tiny_png
from tests.jobs.by_hand import ground_by_hand
from tests.report.test_page import CHROMIUM, chromium

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 30 images, three of them broken, and one with a name that is markup."""
    root = tmp_path_factory.mktemp("grounded")
    (images := root / "images").mkdir()
    for i in range(30):
        data = tiny_png(i, size=90 + i)
        (images / ("<b>0&.png" if i == 0 else f"{i:02d}.png")).write_bytes(data[:80] if i % 10 == 5 else data)
    flags = ["--input", images, "--output", root / "out", "--grid", "3x3", "--chunk-images", 8]
    assert ground_by_hand(*flags, "--assessor.checkpoint", "fake:?view_px=8") == 0
    return root / "out"


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    return (output / "report.html").read_text()


@pytest.fixture(scope="module")
def rows(output: Path) -> list[dict[str, Any]]:
    return pq.read_table(output / "grounding", partitioning=None).to_pylist()


def cells_of_tables(page: str, title: str) -> list[str]:
    """Texts of a table's cells, row by row."""
    [table] = re.findall(rf'<table aria-label="{title}">(.*?)</table>', page, re.DOTALL)
    return [re.sub(r"<[^>]*>", " ", cell).split()[0] for cell in re.findall(r"<td[^>]*>(.*?)</td>", table, re.DOTALL)]


@pytest.mark.slow
def test_counts_and_maps_are_those_of_the_table(page: str, rows: list[dict[str, Any]]) -> None:
    for name in ("lighting", "distortion"):
        own = [row for row in rows if row["dimension"] == name]
        counts = Counter(row["status"] for row in own)
        assert counts["failed"] == 3
        assert counts.total() == 30
        [shown] = re.findall(rf"<tr><td>{name}</td>(.*?)</tr>", page)
        assert sorted(map(int, re.findall(r"\d+", shown))) == sorted([*counts.values(), 30])
        found = [row["cell_scores"] for row in own if row["status"] == "located"]
        worst = Counter(int(np.argmin(scores)) for scores in found)
        told = cells_of_tables(page, f"{name}: how often each cell is the worst")
        assert [*map(int, told)] == [worst[cell] for cell in range(9)]
        means = np.mean([row["cell_scores"] for row in own if row["cell_scores"]], axis=0)
        assert cells_of_tables(page, f"{name}: mean score of each cell") == [f"{mean:.2f}" for mean in means]


@pytest.mark.slow
def test_the_worst_are_shown_with_their_scores_and_the_worst_cell_is_outlined(
    page: str, rows: list[dict[str, Any]]
) -> None:
    own = sorted(
        (row for row in rows if row["dimension"] == "lighting" and row["score"] is not None),
        key=lambda row: row["score"],
    )
    _, section = page.split("<h2>lighting</h2>")
    section = section.split("<h2>")[0]
    tiles = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    assert len(tiles) == 24
    for row, text in zip(own, tiles, strict=False):
        tile = ElementTree.fromstring(text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
        assert f"lighting {row['score']:.2f}" in tile.get("aria-label", "")
        assert [one.text for one in tile.iter(f"{SVG}text")] == [f"{score:.2f}" for score in row["cell_scores"]]
        assert len({*(one.get("class") for one in tile.iter(f"{SVG}rect"))}) == 2, "in two colours"
        width, height = map(float, tile.get("viewBox", "").split()[2:])
        rectangle = next(tile.iter(f"{SVG}rect"))
        x, y, across, down = (float(rectangle.get(side, "")) for side in ("x", "y", "width", "height"))
        centre = ((x + across / 2) / width, (y + down / 2) / height)
        assert centre == pytest.approx((row["x"] / row["width"], row["y"] / row["height"]), abs=0.06)
        assert next(tile.iter(f"{SVG}image")).get("href", "").startswith("data:image/jpeg;base64,")
    assert "<b>0&" not in page, "what comes from the data is escaped"
    assert "http" not in page.replace("http://www.w3.org", ""), "nothing is fetched"


def test_where_less_is_better_the_greatest_is_the_worst() -> None:
    rows = pa.table(
        {
            **{name: ["a", "b"] for name in ("key", "source", "sha256")},
            **{name: pa.array([None, None], pa.int64()) for name in ("offset", "length", "row")},
            **{name: [8, 8] for name in ("width", "height")},
            "score": [0.2, 0.9],
            "status": ["located", "unlocated"],
            "cell_scores": [[0.1, 0.4, 0.3, 0.2], [0.9, 0.9, 0.9, 0.9]],
        }
    )
    less, more = (LocalScores("noise", ends, 2, 5) for ends in (ScoreRange(1, 0), ScoreRange(0, 1)))
    for own in (less, more):
        own.add(rows)
        assert own.means == pytest.approx(np.array([[0.5, 0.65], [0.6, 0.55]]))
    assert (less.worst.tolist(), more.worst.tolist()) == ([[0, 1], [0, 0]], [[1, 0], [0, 0]])
    assert ([row["key"] for row in less.sheet], [row["key"] for row in more.sheet]) == (["b", "a"], ["a", "b"])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_browser_reads_all_pictures(output: Path, tmp_path: Path) -> None:
    try:
        dom = chromium("--window-size=360,800", "--dump-dom", page=output / "report.html", profile=tmp_path / "profile")
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    assert dom.count("<svg") == 48
