"""Opinions -> our own table, or SA-BENCH's JSONL in the words of rubrics. No file is overwritten.

An image is named by its path relative to the folder from which the file's reader looks, where it lies inside of that,
else by its absolute path: what is written is read again without `?images=`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from iqa_core.errors import CallerError, listed
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.sa_bench import image_path
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import Rubric
from iqa_core.rubrics.sa_bench import prompt_line, require_expressible

Split = Literal["train", "test", "full"]

COLUMNS = ("image", "dimension", "mos", "std", "count", "raters", "group", "dataset")
TABLES = (".csv", ".jsonl", ".parquet")
"""Endings of our own tables."""


def write_table(opinions: Sequence[Opinion], path: Path, texts: Mapping[str, str]) -> None:
    """Write one row per opinion, on 1..5, as CSV, JSONL or Parquet by the path's ending.

    texts: slot -> column that its texts are written into. Reading it again gives the same opinions. Raises CallerError
    on another ending, when the file is there already, or for a column of texts that is called as one of COLUMNS.
    """
    if taken := sorted(set(texts.values()) & set(COLUMNS)):
        raise CallerError(f"--slot: {', '.join(taken)} is no column of texts; a table of opinions has it for its own")
    if path.suffix not in TABLES:
        raise CallerError(f"{path}: a table of opinions ends in {', '.join(TABLES)}")
    _require_new(path)
    rows = list(_rows(opinions, path.parent, texts))
    columns = list(dict.fromkeys([*COLUMNS, *texts.values()]))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        _write_parquet(rows, columns, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows({**row, "raters": " ".join(map(str, row["raters"]))} for row in rows)


def write_sa_bench(opinions: Sequence[Opinion], rubrics: Sequence[Rubric], folder: Path, split: Split) -> list[Path]:
    """Write `annotations/{dimension}_{count}_{split}_prompt{version}.jsonl` for each dimension and rubric; their paths.

    The answer has the level word nearest to the mean opinion. Raises CallerError, with nothing written, when a rubric
    lacks a dimension or has words that SA-BENCH's lines cannot carry, when two rubrics are of one prompt version, or
    when there is a file of such a name already.
    """
    versions = [rubric.prompt_version for rubric in rubrics]
    if len(set(versions)) != len(versions):
        raise CallerError(
            f"rubrics of prompt versions {versions}: a file's name has the version, so each needs its own"
        )
    by_dimension: dict[str, list[Opinion]] = {}
    for opinion in opinions:
        by_dimension.setdefault(opinion.dimension, []).append(opinion)
    contents: dict[Path, str] = {}
    for rubric in rubrics:
        require_expressible(rubric)
        if unknown := sorted(by_dimension.keys() - set(rubric.names)):
            raise CallerError(
                f"opinions on {', '.join(unknown)}, but rubric {rubric.id} asks for {listed(rubric.names)}; "
                "choose with --dimension, or name another --rubric"
            )
        for name, rows in by_dimension.items():
            ending = f"{split}_prompt{rubric.prompt_version}.jsonl"
            for there in sorted((folder / "annotations").glob(f"{name}_*_{ending}")):
                _require_new(there)
            path = folder / "annotations" / f"{name}_{len(rows)}_{ending}"
            contents[path] = "".join(f"{line}\n" for line in _prompt_lines(rows, rubric, folder))
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_text(content, encoding="utf-8")
    return list(contents)


def _rows(opinions: Sequence[Opinion], folder: Path, texts: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for opinion in opinions:
        values = (
            _name(opinion.path, folder),
            opinion.dimension,
            opinion.mos,
            opinion.std,
            opinion.num_raters,
            opinion.raters,
            opinion.group,
            opinion.dataset,
        )
        yield dict(zip(COLUMNS, values, strict=True)) | {texts[slot]: text for slot, text in opinion.texts}


def _write_parquet(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    types = {"mos": number, "std": number, "count": pa.int64(), "raters": pa.list_(number)}
    schema = pa.schema([(name, types.get(name, text)) for name in columns])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _prompt_lines(opinions: Sequence[Opinion], rubric: Rubric, folder: Path) -> Iterator[str]:
    dimensions = {dimension.name: dimension for dimension in rubric.dimensions}
    for opinion in opinions:
        image = _name(opinion.path, folder)
        # the reader takes a path that begins with SA-BENCH/ from the parent of the data folder
        if image_path(image, folder) != folder / image:
            image = os.path.abspath(opinion.path)
        yield prompt_line(rubric, dimensions[opinion.dimension], FIVE_LEVELS.nearest(opinion.mos) + 1, image)


def _name(image: Path, folder: Path) -> str:
    path, base = (Path(os.path.abspath(place)) for place in (image, folder))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _require_new(path: Path) -> None:
    if path.exists():
        raise CallerError(f"{path} is there already; give another --output, or remove it")
