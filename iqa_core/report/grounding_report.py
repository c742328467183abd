"""Output of a grounding run -> its report as bytes: how often each cell is the worst, and the worst images with scores
in their cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from iqa_core.corpus.originals import Locator
from iqa_core.corpus.plan.plan import Contract
from iqa_core.grounding.verdict import Verdict
from iqa_core.records import RATING, ImageLimits
from iqa_core.report.gathered import MAX_THUMBNAILS
from iqa_core.report.local_scores import COLUMNS, LocalScores
from iqa_core.report.page import locator_of
from iqa_core.report.scoring_report import assessor_facts
from iqa_core.report.templates import filled
from iqa_core.report.thumbnails import thumbnails
from iqa_core.storage.storage import Storage
from iqa_core.tables.regions.columns import Status
from iqa_core.tables.regions.ledger import open_grounding
from iqa_core.tables.scores.run_record import run_record

SHEET_IMAGES = 24
"""Worst images of each dimension, where these are few enough."""

SIDE = 192
"""Pixels of the longer side of a picture: room for the scores of 3 x 3 cells."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a picture, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    score: float
    is_worst: bool


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of the contact sheet."""

    src: str
    key: str
    score: float
    status: str
    width: float
    """Of the picture, in pixels."""
    height: float
    cells: Sequence[Cell]


def grounding_report(storage: Storage, output: str) -> bytes:
    """The page about the tables `grounding` and `regions` of an output, as far as its chunks are finished.

    Raises CallerError where there are none.
    """
    contract, ledger = open_grounding(storage, output, "--output")
    found = _scores_of(contract)
    chunks = sorted(ledger.finished())
    for _, rows in ledger.grounding.read_all(chunks, ["dimension", *COLUMNS]):
        for own in found:
            own.add(rows.filter(pc.equal(rows.column("dimension"), own.name)))
    wanted = [locator_of(row) for own in found for row in own.sheet]
    small = thumbnails(storage, wanted, contract.locating(), ImageLimits(), SIDE)
    statuses = [status for status in Status if any(own.statuses[status] for own in found)]
    return filled(
        "grounding.html.jinja",
        f"Parts of the images of {output}",
        [
            ("images", f"{found[0].statuses.total():,}"),
            ("cells", f"{found[0].cells} x {found[0].cells}"),
            ("fingerprint", contract.fingerprint),
            *_self_test(contract),
            *assessor_facts(run_record(storage, output)),
        ],
        statuses=statuses,
        dimensions=[_shown(own, small) for own in found],
    )


def _self_test(contract: Contract) -> Iterator[tuple[str, str]]:
    """Whether the worst cells mean something, as a self-test found."""
    verdicts: Mapping[str, Any] = contract.grounding.get("self_test", {})
    for name, said in verdicts.items():
        yield "self-test", f"{name} {Verdict.from_json(said)}"
    if not verdicts:
        yield "self-test", "none was given: whether a worst cell means something, `check --grounding` tells"


def _scores_of(contract: Contract) -> list[LocalScores]:
    names = contract.grounded
    images = max(1, min(SHEET_IMAGES, MAX_THUMBNAILS // len(names)))
    return [LocalScores(name, contract.scale_of(name).range, contract.grounding["cells"], images) for name in names]


def _shown(own: LocalScores, small: Mapping[Locator, str]) -> dict[str, Any]:
    """What the page says of one dimension."""
    ends = own.range
    total = max(int(own.worst.sum()), 1)
    most = max(int(own.worst.max()), 1)
    tiles = [_tile(own, row, small.get(locator_of(row), "")) for row in own.sheet]
    return {
        "name": own.name,
        "ends": None if ends == RATING else f"{ends.worst:g} is worst, {ends.best:g} is best",
        "counts": own.statuses,
        "total": own.statuses.total(),
        "worst": [[(count, count / total, round(count / most * 9)) for count in row] for row in own.worst.tolist()],
        "means": [["–" if np.isnan(mean) else f"{mean:.2f}" for mean in row] for row in own.means.tolist()],
        "tiles": [tile for tile in tiles if tile.src],
    }


def _tile(own: LocalScores, row: Mapping[str, Any], src: str) -> Tile:
    scale = SIDE / max(row["width"], row["height"])
    width, height = row["width"] * scale, row["height"] * scale
    scores, count = row["cell_scores"], own.cells
    worst = int(own.worst_of(np.asarray([scores]))[0]) if row["status"] == Status.LOCATED else None
    cells = [
        Cell(
            place % count * width / count, place // count * height / count, width / count, height / count, score, is_it
        )
        for place, score in enumerate(scores)
        for is_it in [place == worst]
    ]
    return Tile(src, row["key"], row["score"], row["status"], width, height, cells)
