"""Several rubrics on one model in memory: each scores as it does alone, whatever the others ask.

Tests iqa_core/assessor/model/backend.py and choosing.py, and iqa_core/assessor/load.py as far as they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load, load_all
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.protocol import Assessor, AssessorSpec
from iqa_core.errors import RunError
from iqa_core.records import Assessment, ImageLimits
from tests.assessor.tiny import make_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]

IMAGES = make_images((64, 64), (112, 56), (40, 150))
TEXTS = [{"prompt": text, "style": text[::-1]} for text in ("a dog", "two cats on a sofa", "犬")]


def specs_of(folder: Path, shown: Path) -> list[AssessorSpec]:
    """Level words twice, with other system prompts and numbers of questions, and answers and slots."""
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    return [describe(config, rubric, ImageLimits()) for rubric in ("interior-v2", "q-align", str(shown))]


def config_of(spec: AssessorSpec) -> AssessorConfig:
    return AssessorConfig(checkpoint=spec.checkpoint, threads=1)


def scores_of(assessor: Assessor, prepared: Sequence[np.ndarray]) -> np.ndarray:
    results = assessor.assess(prepared, TEXTS if assessor.rubric.slots else None)
    return np.stack([one.scores_K for one in results if isinstance(one, Assessment)])


@pytest.mark.parametrize("name", ["qwen", "qwen3_5", "paligemma"])
def test_each_scores_as_it_does_alone(name: str, shown: Path, request: pytest.FixtureRequest) -> None:
    """A packed model, one of linear attention, and one that gets a forward per prompt."""
    specs = specs_of(request.getfixturevalue(name), shown)
    assert all(replace(spec.preparer, cost=specs[0].preparer.cost) == specs[0].preparer for spec in specs)  # type: ignore[type-var, attr-defined]
    together = load_all(specs, config_of(specs[0]))
    prepared = [specs[0].preparer.prepare(image) for image in IMAGES]
    found = [scores_of(assessor, prepared) for assessor in (*together, *together)]
    for i, (spec, assessor) in enumerate(zip(specs, together, strict=True)):
        assert isinstance(assessor, TransformersAssessor)
        assert assessor.model is together[0].model  # type: ignore[attr-defined]
        alone = load(spec, config_of(spec))
        assert isinstance(alone, TransformersAssessor)
        assert type(alone._strategy) is type(assessor._strategy)
        np.testing.assert_allclose(found[i], scores_of(alone, prepared), atol=1e-5)
        np.testing.assert_allclose(found[i + len(specs)], found[i], atol=1e-6)


def test_a_checkpoint_that_changed_under_one_of_them_is_noticed(qwen: Path, shown: Path) -> None:
    first, *_, last = specs_of(qwen, shown)
    changed = replace(last, fingerprint_parts={**last.fingerprint_parts, "weights": "others"})
    with pytest.raises(RunError, match="is not the one that the run began with"):
        load_all([first, changed], config_of(first))
