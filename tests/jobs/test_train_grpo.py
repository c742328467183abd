"""Training by ranking on a real Ray: ranked and exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.direct import assess_images, load_assessor
from tests.jobs.trainings import ended, records, small_ranking, starting

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_run_ranks_validates_and_exports_what_scoring_takes(ray_address: str, tmp_path: Path) -> None:
    training, output = small_ranking(tmp_path), tmp_path / "ranked"
    with starting(training, ray_address) as start:
        printed = ended(start(output))
    assert "rewards    fidelity 1, score 1, format 0.5" in printed
    assert f"step {training.steps}/{training.steps}" in printed
    assert "calibrate  quality: none; opinions on " in printed, "the validation part is too small"
    assert [record["step"] for record in records(output)] == list(range(1, training.steps + 1))
    assert [record["step"] for record in records(output) if "parsed" in record] == [2, 4, 6]
    exported = output / "checkpoint"
    assert "rewards fidelity 1, score 1, format 0.5" in (exported / "README.md").read_text()
    manifest = read_manifest(exported)
    assert manifest is not None
    assert manifest.rubric == "rubric.toml"
    assert manifest.golden, "texts and numbers about the bundled images"
    [found] = assess_images(load_assessor(str(exported), threads=1), [training.image])
    assert all(1 <= score <= 5 for score in found.scores_K)  # type: ignore[union-attr]
    assert list((output / "tensorboard").iterdir())
    texts = records(output, "texts.jsonl")
    assert [record["step"] for record in texts] == [step for step in (2, 4, 6) for _ in range(4)]
    page = (output / "report.html").read_text()
    assert page.count("<img ") == 4, "the images that are written about"
    assert "normalised fidelity" in page
