"""An output that was scored -> what a run over it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.assessing.proposing import applied, proposed
from jobs.assessing.stock import Stock, opening, take_stock
from jobs.command import parse
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings
from tests.corpora import tiny_png, write_folder
from tests.jobs.by_hand import score_by_hand


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Twelve images in three chunks; one of them lay elsewhere when they were scored."""
    write_folder(tmp_path / "in", {f"{index:02d}.png": tiny_png(index) for index in range(11)})
    lines = "".join(f'{{"uri": "{tmp_path}/in/{index:02d}.png"}}\n' for index in range(12))
    (tmp_path / "list.jsonl").write_text(lines)
    assert score_by_hand(*flags(tmp_path)) == 0
    return tmp_path


def flags(root: Path) -> list[object]:
    return ["--input", root / "list.jsonl", "--output", root / "out", "--chunk-images", 4]


def found(root: Path, *more: object) -> Stock:
    job = checked(parse(ScoreSettings, [*map(str, [*flags(root), *more]), "--assessor.checkpoint", "fake:"]))
    proposal = proposed(job)
    stock = take_stock(job, applied(job, proposal))
    assert f"{stock.table.images} images in {len(stock.finished)} chunks; to do: " in opening(job, proposal, stock, "")
    return stock


def test_all_that_is_finished_is_counted(scored: Path) -> None:
    stock = found(scored)
    assert stock.finished == set(stock.expected) == {f"000000-00000{index}" for index in range(3)}
    assert (stock.images_expected, stock.is_counted, stock.images_done) == (12, True, 12)
    assert (stock.table.images, stock.table.rejected, stock.retries) == (12, 1, {})


def test_beyond_the_limit_the_table_is_counted_and_the_run_is_not(scored: Path) -> None:
    stock = found(scored, "--limit", 4)
    assert list(stock.expected) == ["000000-000000"]
    assert (stock.images_done, stock.table.images, len(stock.finished)) == (4, 12, 3)


def test_what_is_tried_again_is_not_finished(scored: Path) -> None:
    stock = found(scored, "--retry-rejected")
    assert stock.retries == {"000000-000002": (3,)}
    assert stock.finished == {"000000-000000", "000000-000001"}
    assert (stock.images_done, stock.table.images, stock.table.rejected) == (11, 8, 0)


def test_warnings_of_the_run_before_are_known_where_its_record_can_be_read(scored: Path) -> None:
    record = scored / "out" / "run.json"
    assert found(scored).warnings is None
    record.write_text(json.dumps(json.loads(record.read_text()) | {"warnings": ["it may mean nothing"]}))
    assert found(scored).warnings == ["it may mean nothing"]
    record.write_text("{")
    assert found(scored).warnings is None
