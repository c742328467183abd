"""A score table -> its report as bytes: read once in order, then a few originals for the contact sheets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from iqa_core.corpus.originals import Locator
from iqa_core.records import ImageLimits
from iqa_core.report.comparison import compare_tables
from iqa_core.report.gathered import Gathered, group_columns
from iqa_core.report.page import Moved, Report, locator_of, render
from iqa_core.report.thumbnails import thumbnails
from iqa_core.storage.uris import join
from iqa_core.tables.scores.run_record import run_record
from iqa_core.tables.scores.score_table import ScoreTable
from iqa_core.written.columns import CAPTION, REASONING
from iqa_core.written.form import LENIENT

GROUNDING_REPORT = "grounding.html"
"""The report on parts of the images, beside that of the scores, where one pass scored both."""


def scoring_report(table: ScoreTable, against: ScoreTable | None = None) -> bytes:
    """The page about a table's rows and the run that finished last. against: the table of a run to compare with.

    Raises CallerError when the two tables have no dimension or no image in common.
    """
    gathered = gather(table)
    record = run_record(table.storage, table.uri)
    moved = None if against is None else compare_tables(table, against)
    return render(
        Report(
            title=f"Scores of {table.uri}",
            facts=[*_facts(table, gathered), *assessor_facts(record), *_written_facts(record, gathered)],
            gathered=gathered,
            thumbnails=sheet_thumbnails(table, gathered, moved),
            progress=record.get("this_run", {}).get("progress", ()),
            moved=moved,
        )
    )


def assessor_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who scored, with which questions, for which images, and with which warnings, as far as run.json says it."""
    meant_for = record.get("meant_for", {})
    facts = [
        ("assessor", record.get("checkpoint")),
        ("knows", meant_for.get("checkpoint")),
        ("rubric", record.get("rubric")),
        ("meant for", meant_for.get("rubric")),
        *(("warning", warning) for warning in record.get("warnings") or ()),
    ]
    return [(name, value) for name, value in facts if value]


def _written_facts(record: Mapping[str, Any], gathered: Gathered) -> Iterator[tuple[str, str]]:
    """How written answers were parsed, and how long their texts are."""
    counts: Mapping[str, int] = record.get("written_answers", {})
    # a lenient switch is counted beside the answer that it let pass
    answers = sum(count for what, count in counts.items() if what not in LENIENT)
    if answers:
        yield "answers", f"{answers:,}: " + ", ".join(f"{what} {n / answers:.2%}" for what, n in counts.items())
    for name, lengths in gathered.lengths.items():
        if lengths.count:
            mean = lengths.total / lengths.count
            yield name, f"{mean:,.0f} characters in the mean, {lengths.longest:,} at most"


def gather(table: ScoreTable) -> Gathered:
    """What the report shows of all rows; one chunk is held at a time."""
    contract = table.contract
    texts = (CAPTION, REASONING) if contract.written else ()
    gathered = Gathered((*contract.dimensions, "reward"), group_columns(contract.carried), contract.scales, texts)
    for _, rows in table.ledger.read_all(table.chunks, gathered.columns):
        gathered.add(rows)
    return gathered


def sheet_thumbnails(table: ScoreTable, gathered: Gathered, moved: Moved | None = None) -> Mapping[Locator, str]:
    """Thumbnails of all images that the page shows."""
    wanted = [locator_of(image.values) for image in gathered.shown()]
    if moved is not None:
        wanted += [locator_of(values) for values in moved.most]
    return thumbnails(table.storage, wanted, table.contract.locating(), ImageLimits())


def _facts(table: ScoreTable, gathered: Gathered) -> list[tuple[str, str]]:
    rejected = gathered.images - gathered.scored
    share = f" ({rejected / gathered.images:.2%})" if gathered.images else ""
    facts = [
        ("images", f"{gathered.images:,}"),
        ("scored", f"{gathered.scored:,}"),
        ("rejected", f"{rejected:,}{share}"),
        ("fingerprint", table.contract.fingerprint),
    ]
    if table.contract.slots.columns:
        facts.append(("slots", table.contract.slots.describe()))
    parts = join(table.uri, GROUNDING_REPORT)
    if table.contract.grounding and table.storage.stat(parts) is not None:
        facts.append(("their parts", f"scored in {', '.join(table.contract.grounded)}: {parts}"))
    if len(table.chunks) < table.planned:
        facts.append(("unfinished", f"{table.planned - len(table.chunks):,} of {table.planned:,} chunks"))
    return facts
