"""Level logits of a rubric's dimensions for views of images -> assessments, view by view.

Shape suffixes: N images, B views of each, K questions that are asked, V rows of the output matrix that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from iqa_core.assessor.model.level_head import LevelColumns
from iqa_core.levels import Readout
from iqa_core.questions import asked_alone
from iqa_core.records import Assessment, Rejection
from iqa_core.rubrics import Rubric


@dataclass(frozen=True)
class RubricPart:
    """Some dimensions of a rubric, asked without the others."""

    questions: tuple[int, ...]
    """Numbers of their questions in the rubric."""
    columns: LevelColumns
    readout: Readout

    @classmethod
    def whole(cls, rubric: Rubric, columns: LevelColumns, readout: Readout) -> RubricPart:
        """All of a rubric. columns, readout: its own."""
        return cls(tuple(range(len(rubric.questions))), columns, readout)

    @classmethod
    def of(cls, rubric: Rubric, names: Sequence[str], columns: LevelColumns) -> RubricPart:
        """The part with these dimensions, in the rubric's order. columns: of all its questions.

        Raises ValueError on a name that the rubric lacks.
        """
        numbers, chosen = asked_alone(rubric.columns, names)
        questions = [rubric.questions[k] for k in numbers]
        return cls(tuple(numbers), columns.asking(numbers), Readout(questions, chosen))

    def assessments(self, logits: torch.Tensor, num_images: int) -> list[list[Assessment | Rejection]]:
        """One per view of each image, from logits (N, B * K, V)."""
        if not logits.shape[1]:
            return [[] for _ in range(num_images)]
        logits_BKV = logits.reshape(-1, len(self.questions), logits.shape[-1])
        found = self.readout.assessments(self.columns.of(logits_BKV).numpy())
        each = len(found) // num_images
        return [found[i : i + each] for i in range(0, len(found), each)]
