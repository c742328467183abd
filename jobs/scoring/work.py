"""Prepared images -> their scores along the dimensions of a rubric: what the scoring job asks, as rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.protocol import Assessor
from iqa_core.corpus.batches import ReadyBatch
from iqa_core.corpus.chunks import LOCATION
from iqa_core.fusion import FusionWeights
from iqa_core.grounding.batches import Grounded, assess_and_ground_each
from iqa_core.questions import own_scales
from iqa_core.records import Assessment, Rejection
from iqa_core.rubrics import AnyRubric
from iqa_core.tables.regions.beside_scores import PARTS
from iqa_core.tables.scores.columns import groups_of, status_and_scores
from iqa_core.written.columns import WrittenColumns
from iqa_core.written.judging import tally
from jobs.assessing.grounding import Grounding


@dataclass(frozen=True, slots=True)
class Scoring:
    """The rubric's questions, and what is kept of the answers; see `Asking`, which it implements."""

    rubric: AnyRubric
    weights: FusionWeights
    probs: bool = False
    written: WrittenColumns | None = None

    @property
    def passes(self) -> int:
        """See `Asking.passes`."""
        return 1

    def results(self, assessor: Assessor, batch: ReadyBatch) -> list[Assessment | Rejection]:
        """See `Asking.results`."""
        return assess_each(assessor, batch.images, batch.texts)

    def rows(self, batch: ReadyBatch, results: Sequence[Assessment | Rejection]) -> pa.Table:
        """See `Asking.rows`."""
        groups = groups_of(own_scales(self.rubric.columns))
        names = self.rubric.names
        judged = status_and_scores(batch.rejections, results, names, self.probs, self.weights, groups, self.written)
        return with_scores(batch.facts, judged)

    def answers(self, batch: ReadyBatch, results: Sequence[Assessment | Rejection]) -> tuple[Mapping[str, int], ...]:
        """See `Asking.answers`."""
        waiting = iter(results)
        found = tuple(tally(rejection or next(waiting)) for rejection in batch.rejections)
        return found if any(found) else ()


@dataclass(frozen=True, slots=True)
class GroundedScoring:
    """The same, and where each image is bad, while it goes through the model once; see `Asking`."""

    scoring: Scoring
    grounding: Grounding

    @property
    def passes(self) -> int:
        """See `Asking.passes`."""
        return self.grounding.passes

    def results(
        self, assessor: Assessor, batch: ReadyBatch
    ) -> list[tuple[Assessment | Rejection, Grounded | Rejection]]:
        """See `Asking.results`."""
        asked = self.grounding.asked_about(batch)
        return assess_and_ground_each(assessor, asked, self.grounding.dimensions, self.grounding.cells)

    def rows(
        self, batch: ReadyBatch, results: Sequence[tuple[Assessment | Rejection, Grounded | Rejection]]
    ) -> pa.Table:
        """See `Asking.rows`: those of the score table, with PARTS behind them."""
        table = self.scoring.rows(batch, [assessment for assessment, _ in results])
        said = self.grounding.rows(batch, [grounded for _, grounded in results])
        for part in PARTS:
            table = table.append_column(part, said.column(part.name))
        return table

    def answers(
        self, batch: ReadyBatch, results: Sequence[tuple[Assessment | Rejection, Grounded | Rejection]]
    ) -> tuple[Mapping[str, int], ...]:
        """None: only closed sets of answers have views."""
        return ()


def with_scores(facts: pa.Table, judged: pa.Table) -> pa.Table:
    """Columns of the score table in their order: location, status and scores, carried."""
    table = facts.select(LOCATION.names)
    for source in (judged, facts.drop_columns(LOCATION.names)):
        for field in source.schema:
            table = table.append_column(field, source.column(field.name))
    return table
