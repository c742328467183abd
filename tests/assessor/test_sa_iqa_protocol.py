"""SA-IQA's protocol from the files that people have: weights, args.json, annotation lines -> the upstream scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import assess_images
from iqa_core.assessor.load import describe, load
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, ImageLimits

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).resolve().parent.parent / "data" / "ovis2_5"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["cases"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The golden checkpoint as a trainer leaves it: the system prompt stands in args.json, and nowhere else."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("expected*", "*.png")))
    (folder / "args.json").write_text(json.dumps({"model_type": "ovis2_5", "system": CASES[0]["system"]}))
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """One line per case, in the form of SA-BENCH: the newline behind the image is the template's, not the query's."""
    folder = tmp_path / "SA-BENCH" / "annotations"
    folder.mkdir(parents=True)
    for case in CASES:
        query = case["user"].replace("<image>\n", "<image>")
        line = {"query": query, "response": f"{case['answer_prefix']} fair.", "images": [case["image"]]}
        (folder / f"{case['dimension']}_1_test_prompt2.jsonl").write_text(f"{json.dumps(line)}\n", "utf-8")
    return folder


def test_the_upstream_scores_come_out(checkpoint: Path, lines: Path) -> None:
    config = AssessorConfig(checkpoint=str(checkpoint), dtype="float32", threads=1)
    spec = describe(config, f"sa-bench:{lines}?prompt=2", ImageLimits())
    assert (spec.system.origin, spec.rubric.system) == ("args.json", CASES[0]["system"])
    small = [case for case in CASES if case["num_visual_tokens"] < 300]
    results = assess_images(load(spec, config), [GOLDEN / case["image"] for case in small])
    for case, result in zip(small, results, strict=True):
        assert isinstance(result, Assessment)
        k = spec.rubric.names.index(case["dimension"])
        assert result.scores_K[k] == pytest.approx(case["score"], abs=1e-4)
        assert result.probs_K[k][::-1] == pytest.approx(case["probabilities"], abs=1e-4)


def test_a_released_checkpoint_is_not_asked_in_our_words(checkpoint: Path) -> None:
    with pytest.raises(CallerError, match=r"has no assessor.toml, so its rubric is not known; name it with --rubric"):
        describe(AssessorConfig(checkpoint=str(checkpoint)), None, ImageLimits())
