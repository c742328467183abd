"""Captions of scenes -> the tables beside the images: what each image carries, and what training reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iqa_core.demo.captions import Captions

DIMENSION = "faithful"
"""The dimension of `faithful.toml`: 0, the caption is false, to 1, it is true."""
DESCRIBE = "Describe the room."


def write_captions(output: Path, captions: Mapping[str, Captions], are_loose: bool) -> None:
    """Write captions.csv, opinions on both captions of each image, and descriptions.jsonl, for `--text` of training.

    captions: by the image's path below the folder. are_loose: the images have no columns of their own, so metadata.csv
    gives them theirs; a truth is 1 or 0 there.
    """
    opinions = [
        {"image": image, "caption": caption, "dimension": DIMENSION, "mos": is_true}
        for image, made in captions.items()
        for caption, is_true in ((made.true, 1), (made.false, 0))
    ]
    write_csv(output / "captions.csv", opinions)
    with (output / "descriptions.jsonl").open("w", encoding="utf-8") as file:
        for image, made in captions.items():
            file.write(json.dumps({"query": DESCRIBE, "response": made.description, "image": image}) + "\n")
    if are_loose:
        rows = [{"file_name": image, **made.columns} for image, made in captions.items()]
        write_csv(output / "metadata.csv", [row | {"caption_true": int(row["caption_true"] is True)} for row in rows])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, of which there is at least one, all with the same columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
