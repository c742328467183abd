"""What was gathered, and thumbnails -> one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from iqa_core.corpus.originals import LOCATOR, Locator
from iqa_core.records import RATING
from iqa_core.report.charts import histogram, progress_line
from iqa_core.report.gathered import SHEETS, Gathered, Shown
from iqa_core.report.templates import filled
from iqa_core.tables.scores.columns import SCORED

SHEET_TITLES = {
    False: {"best": "best", "worst": "worst", "borderline": "borderline: nearest to {middle:g}"},
    True: {"best": "best kept", "worst": "worst kept", "borderline": "best of what is dropped"},
}
"""Whether the page is of a selection -> sheet -> its title, which may name the middle of the range."""


SHOWN_TEXT = 600
"""Characters of a written text at most: 300 images with two each stay under 400 kB."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How another run's scores of the same images differ: this run's minus the other's."""

    uri: str
    images: int
    """Images that both runs scored."""
    rows: Sequence[Mapping[str, Any]]
    """By dimension: name, mean_here, mean_there, drift, spread, correlation."""
    most: Sequence[Mapping[str, Any]]
    """Images that moved most: key, locator columns, reward_here, reward_there."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that stands on a page."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Name and value of each line at the top."""
    gathered: Gathered
    thumbnails: Mapping[Locator, str]
    is_selection: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)
    progress: Sequence[Sequence[float]] = ()
    """(seconds, images) of the run."""
    moved: Moved | None = None


def locator_of(values: Mapping[str, Any]) -> Locator:
    return Locator(**{name: values[name] for name in LOCATOR})


def render(report: Report) -> bytes:
    """The page; whatever comes from the data is escaped."""
    gathered = report.gathered
    return filled(
        "page.html.jinja",
        report.title,
        report.facts,
        report=report,
        gathered=gathered,
        ends=RATING,
        captions=(captions := _captions(gathered)),
        is_uneven=captions != list(gathered.names),
        histograms=[_histogram(report, k) for k in range(len(gathered.names))],
        progress=progress_line(report.progress) if len(report.progress) > 1 else None,
        correlations=_cells(gathered),
        sheets=[(name, _sheets(report, name)) for name in gathered.names],
        rejects=[(code, count) for code, count in gathered.reasons.most_common() if code != SCORED],
        groups=_groups(gathered),
        moved=[_tile(report, values, _change(values)) for values in report.moved.most] if report.moved else [],
    )


def _histogram(report: Report, k: int) -> Markup:
    gathered = report.gathered
    labels = ("kept", "dropped") if report.is_selection else ("images",)
    name, counts, mean = gathered.names[k], gathered.histograms[: len(labels), k], float(gathered.means()[k])
    return histogram(name, counts, mean, labels, gathered.range_of(name))


def _captions(gathered: Gathered) -> list[str]:
    """Names, each with the ends of its range where these are not 1 and 5."""
    ranges = [(name, gathered.range_of(name)) for name in gathered.names]
    return [
        name if ends == RATING else f"{name}: {ends.worst:g} is worst, {ends.best:g} is best" for name, ends in ranges
    ]


def _cells(gathered: Gathered) -> list[tuple[str, list[tuple[str, int]]]]:
    """Name -> (text, strength 0 to 9) by column."""
    return [
        (name, [("–", 0) if np.isnan(r) else (f"{r:.2f}", round(abs(r) * 9)) for r in row])
        for name, row in zip(gathered.names, gathered.correlations(), strict=True)
    ]


def _sheets(report: Report, name: str) -> list[tuple[str, list[dict[str, Any]]]]:
    titles, middle = SHEET_TITLES[report.is_selection], report.gathered.range_of(name).middle
    found = []
    for sheet in SHEETS:
        images: Sequence[Shown] = report.gathered.sheets.get((name, sheet), ())
        tiles = [_tile(report, image.values, f"{image.values[name]:.2f}") for image in images]
        found.append((titles[sheet].format(middle=middle), [tile for tile in tiles if tile["src"]]))
    return found


def _tile(report: Report, values: Mapping[str, Any], text: str) -> dict[str, Any]:
    """One image with its caption, and what was written about it; src is empty where it has no thumbnail."""
    said = [_shortened(values[name]) for name in report.gathered.texts if values.get(name)]
    src = report.thumbnails.get(locator_of(values), "")
    return {"src": src, "key": str(values["key"]), "text": text, "said": said}


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]} …"


def _change(values: Mapping[str, Any]) -> str:
    return f"{values['reward_there']:.2f} → {values['reward_here']:.2f}"


def _groups(gathered: Gathered) -> list[tuple[str, list[tuple[str, int, list[str]]]]]:
    """Column -> (value, images, means), the largest group first; a column of one value is left out."""
    found = []
    for column, values in gathered.by_group.items():
        if len(values) < 2:
            continue
        ordered = sorted(values.items(), key=lambda item: (-item[1].images, str(item[0])))
        rows = [
            (str(value), group.images, ["" if np.isnan(mean) else f"{mean:.2f}" for mean in group.means_K])
            for value, group in ordered
        ]
        found.append((column, rows))
    return found
