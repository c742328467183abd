"""A finished output -> the same with one thing wrong, in every way that a disk, a script or a hand can do it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True)
class Finished:
    """Outputs to take files from."""

    output: Path
    of_other_images: Path
    """Same fingerprint, chunks of the same names and sizes."""
    of_other_model: Path
    """The same images."""
    older: Path
    """Score files that the output had before they were merged or tried again."""


Corruption = Callable[[Random, Path, Finished], None]


def files_of(output: Path) -> list[Path]:
    return sorted((output / "scores").glob("*.parquet"))


def two_of(rng: Random, output: Path) -> tuple[Path, Path]:
    one, other = rng.sample(files_of(output), 2)
    return one, other


def swap(rng: Random, output: Path, finished: Finished) -> None:
    one, other = two_of(rng, output)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def copy_over(rng: Random, output: Path, finished: Finished) -> None:
    one, other = two_of(rng, output)
    shutil.copy(one, other)


def damage(rng: Random, path: Path) -> None:
    """Flip bytes, cut, lengthen, empty, or overwrite with zeros."""
    data = bytearray(path.read_bytes())
    kind = rng.randrange(6)
    if kind < 3:
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        begin = (0, footer, len(data) - 12)[kind]
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(max(0, begin), len(data))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        del data[rng.randrange(len(data)) :]
    elif kind == 4:
        data += bytes(rng.randint(1, 99))
    else:
        begin = rng.randrange(len(data))
        data[begin : begin + 64] = bytes(len(data[begin : begin + 64]))
    path.write_bytes(data)


def damage_scores(rng: Random, output: Path, finished: Finished) -> None:
    damage(rng, rng.choice(files_of(output)))


def damage_plan(rng: Random, output: Path, finished: Finished) -> None:
    damage(rng, rng.choice(sorted((output / "plan").iterdir())))


def rewrite(rng: Random, output: Path, finished: Finished) -> None:
    """Rows dropped, doubled, put in another order, or a score changed, by a program that keeps metadata or does not."""
    path = rng.choice(files_of(output))
    rows = pq.read_table(path)
    order = list(range(rows.num_rows))
    kind = rng.randrange(4)
    if kind == 0:
        del order[rng.randrange(len(order))]
    elif kind == 1:
        order[rng.randrange(len(order))] = order[rng.randrange(len(order))]
    elif kind == 2:
        rng.shuffle(order)
    else:
        place = rows.schema.get_field_index("layout")
        values = rows.column("layout").to_pylist()
        values[rng.randrange(len(values))] = rng.choice([1.25, 9.0, float("nan"), None])
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.float32()))
    rows = rows.take(pa.array(order, pa.int64()))
    pq.write_table(rows if rng.random() < 0.5 else rows.replace_schema_metadata(None), path)


def rename(rng: Random, output: Path, finished: Finished) -> None:
    one, other = two_of(rng, output)
    (output / "scores" / "aside").mkdir()
    one.rename(output / "scores" / new_name(rng, one, other))


def duplicate(rng: Random, output: Path, finished: Finished) -> None:
    one, other = two_of(rng, output)
    (output / "scores" / "aside").mkdir()
    shutil.copy(one, output / "scores" / new_name(rng, one, other))


def new_name(rng: Random, one: Path, other: Path) -> str:
    """Of another chunk, generation or pack, of none, or in a folder of its own."""
    chunk = one.name[:13]
    names = [
        "000000-000077",
        "000003-000000",
        "000000-000000-000005",
        f"{chunk}.5-01234567",
        f"{chunk}-{chunk[7:]}.9-01234567",
        f"{other.name[:13]}.7-{one.stem[-8:]}",
        "copy",
        "aside/copy",
    ]
    return f"{rng.choice(names)}.parquet"


def delete(rng: Random, output: Path, finished: Finished) -> None:
    rng.choice(files_of(output)).unlink()


def take_from(rng: Random, output: Path, folder: Path) -> None:
    """A file of another output, in the place of one or beside all."""
    taken = rng.choice(files_of(folder))
    target = output / "scores" / taken.name
    chunk = taken.name[:13]
    same = [path for path in files_of(output) if path.name[:13] == chunk]
    shutil.copy(taken, rng.choice(same) if same and rng.random() < 0.5 else target)


def take_other_images(rng: Random, output: Path, finished: Finished) -> None:
    take_from(rng, output, finished.of_other_images)


def take_other_model(rng: Random, output: Path, finished: Finished) -> None:
    take_from(rng, output, finished.of_other_model)


def take_older(rng: Random, output: Path, finished: Finished) -> None:
    take_from(rng, output, finished.older)


def edit_plan(rng: Random, output: Path, finished: Finished) -> None:
    """A segment without some rows, or of other sources, or with its rows twice."""
    path = rng.choice(sorted((output / "plan").glob("*.parquet")))
    rows = pq.read_table(path)
    kind = rng.randrange(4)
    if kind == 0:
        rows = rows.filter(pa.array([rng.random() < 0.7 for _ in range(rows.num_rows)]))
    elif kind == 1:
        rows = pa.concat_tables([rows, rows.slice(rng.randrange(rows.num_rows), 1)])
    else:
        name = ("source", "images")[kind - 2]
        values = rows.column(name).to_pylist()
        place = rng.randrange(len(values))
        values[place] = f"{values[place]}x" if kind == 2 else (values[place] or 0) + 1
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values))
    pq.write_table(rows, path)


def edit_contract(rng: Random, output: Path, finished: Finished) -> None:
    path = output / "plan" / "000000.json"
    content = json.loads(path.read_text())
    changes = {
        "fingerprint": "0" * 16,
        "dimensions": ["layout", "light"],
        "fusion": "f" * 64,
        "probs": True,
        "fingerprint_parts": {"weights": "w2", "rubric": "r1"},
        "chunk_images": 9,
    }
    name = rng.choice(sorted(changes))
    path.write_text(json.dumps({**content, name: changes[name]}))


CORRUPTIONS: tuple[Corruption, ...] = (
    swap,
    copy_over,
    damage_scores,
    damage_scores,
    damage_scores,
    damage_plan,
    rewrite,
    rewrite,
    rename,
    duplicate,
    delete,
    take_other_images,
    take_other_model,
    take_older,
    edit_plan,
    edit_contract,
)
