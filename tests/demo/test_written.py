"""The shipped checkpoint that writes -> answers of both rubrics about new scenes, parsed, and near the truth.

Tests iqa_core/demo/card.py as far as it installs this one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.protocol import CaptionReader
from iqa_core.demo.card import DOMAIN, WRITTEN
from iqa_core.demo.scenes import Scene, make_scene
from iqa_core.demo.texts import PERCEPTION, written_rubrics
from iqa_core.records import Assessment

pytestmark = pytest.mark.slow

SEED, COUNT = 1_000_003, 40


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(SEED, index) for index in range(COUNT)]


@pytest.mark.parametrize("rubric", [None, PERCEPTION])
def test_it_writes_what_is_parsed_and_nearly_true(rubric: str | None, scenes: list[Scene]) -> None:
    """On loading, its golden scores are compared."""
    assessor = load_assessor("demo-written", rubric, threads=1)
    found = assess_images(assessor, [Image.fromarray(scene.pixels_HWC) for scene in scenes])
    parsed = [(one, scene) for one, scene in zip(found, scenes, strict=True) if isinstance(one, Assessment)]
    assert len(parsed) >= COUNT - 1
    for k, name in enumerate(assessor.rubric.names):
        truths = [scene.quality if name == "quality" else scene.truths[name] for _, scene in parsed]
        assert spearmanr([one.scores_K[k] for one, _ in parsed], truths).statistic > 0.85, name
    captions = [one.written.caption for one, _ in parsed if one.written is not None]
    assert (None in captions) == (rubric is None)
    assert len({one.written.reasoning for one, _ in parsed if one.written is not None}) > COUNT / 2
    assert isinstance(assessor, CaptionReader)
    if rubric is None:
        with pytest.raises(TypeError, match="interior-written-v1 have no caption"):
            assessor.rate_captions([""])
        return
    read = assessor.rate_captions([caption or "" for caption in captions])
    assert ((read >= 1) & (read <= 5)).all(), "it knows how to answer without an image; how well is in docs/evaluate.md"
    assert np.array_equal(assessor.rate_captions([captions[0] or ""]), read[:1]), "each by itself"


def test_what_ships_is_small_and_says_what_it_is() -> None:
    manifest = read_manifest(WRITTEN)
    assert manifest is not None
    assert (manifest.rubric, manifest.dtype, manifest.domain) == (next(iter(written_rubrics())), "float32", DOMAIN)
    assert len(manifest.golden) == 3
    assert sum(file.stat().st_size for file in Path(WRITTEN).iterdir()) < 9e6 + 3e5, "9 MB of weights"
    assert (WRITTEN / "model.safetensors").stat().st_size < 9e6
    section = (WRITTEN / "README.md").read_text().split("<!-- figures -->")[1].split("<!-- /figures -->")[0]
    assert section.count("| interior-") == len(written_rubrics())
