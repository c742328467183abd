"""A score table -> its report as bytes: read once in order, then a few originals for the contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.originals import Place
from iqa_core.corpus.score_tables import ScoreTable
from iqa_core.corpus.storage import join
from iqa_core.records import ImageLimits
from iqa_core.report.comparison import compare
from iqa_core.report.gathered import Gathered, group_columns
from iqa_core.report.page import Moved, Report, place_of, render
from iqa_core.report.thumbnails import thumbnails


def scoring_report(
    table: ScoreTable, progress: Sequence[Sequence[float]] = (), against: ScoreTable | None = None
) -> bytes:
    """progress: (seconds, images) of the run that scored it; against: another run to compare with."""
    gathered = gather(table)
    moved = None if against is None else compare(table, against)
    return render(
        Report(
            title=f"Scores of {table.uri}",
            facts=_facts(table, gathered),
            gathered=gathered,
            thumbnails=sheet_thumbnails(table, gathered, moved),
            progress=progress,
            moved=moved,
        )
    )


def progress_of(table: ScoreTable) -> list[list[float]]:
    """(seconds, images) of the run that finished last; nothing where none has."""
    uri = join(table.uri, "run.json")
    if table.storage.stat(uri) is None:
        return []
    found: list[list[float]] = table.storage.read_object(uri, "this_run")["this_run"].get("progress", [])
    return found


def gather(table: ScoreTable) -> Gathered:
    """All rows, a chunk at a time."""
    contract = table.contract
    gathered = Gathered((*contract.dimensions, "reward"), group_columns(contract.carried))
    for _, rows in table.ledger.read_all(table.chunks, gathered.columns):
        gathered.add(rows)
    return gathered


def sheet_thumbnails(table: ScoreTable, gathered: Gathered, moved: Moved | None = None) -> Mapping[Place, str]:
    """Of all images that the page shows."""
    columns = table.contract.columns
    options = ReadOptions(image_column=columns.get("image"), uri_column=columns.get("uri"))
    wanted = [place_of(image.values) for image in gathered.shown()]
    if moved is not None:
        wanted += [place_of(values) for values in moved.most]
    return thumbnails(table.storage, wanted, options, ImageLimits())


def _facts(table: ScoreTable, gathered: Gathered) -> list[tuple[str, str]]:
    rejected = gathered.images - gathered.scored
    share = f" ({rejected / gathered.images:.2%})" if gathered.images else ""
    facts = [
        ("images", f"{gathered.images:,}"),
        ("scored", f"{gathered.scored:,}"),
        ("rejected", f"{rejected:,}{share}"),
        ("fingerprint", table.contract.fingerprint),
    ]
    if len(table.chunks) < table.planned:
        facts.append(("unfinished", f"{table.planned - len(table.chunks):,} of {table.planned:,} chunks"))
    return facts
