"""Written rubrics held against checkpoints that do not answer them.

Tests iqa_core/inspection/findings.py as far as they go.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqa_core.__main__ import main
from iqa_core.assessor.checkpoint.manifest import save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.inspection.check import quick_check
from iqa_core.inspection.findings import Finding, Verdict, failed, graded
from iqa_core.inspection.written_check import _answers, _spread
from iqa_core.records import Assessment, Finish, ImageLimits, Reason, Rejection, Written
from tests.inspection.speaking import save_writing

RUBRIC = "interior-written-v1"


def written(text: str, parsed: int, codes: tuple[str, ...] = ()) -> Assessment:
    score = np.array([3.0], np.float32)
    return Assessment(score, score, (), Written(None, None, Finish.LENGTH, (text,), parsed, codes=codes, lenient=()))


@pytest.mark.slow
def test_a_checkpoint_that_says_something_else_fails_before_a_job_begins() -> None:
    """The demo says its level words, whatever it is asked."""
    config = AssessorConfig(checkpoint="demo", threads=1)
    findings = {one.name: one for one in quick_check(describe(config, RUBRIC, ImageLimits()), config)}
    assert findings["answers"].verdict is Verdict.FAIL
    assert findings["answers"].said.startswith("0 of 3 are parsed; of room-0062: no_open: The spatial aesthetic")
    assert findings["rubric"].verdict is Verdict.WARNING
    assert "spread" not in findings
    assert failed([*findings.values()])
    assert not any(one.forbids_loading for one in findings.values())


def test_shares_count_answers() -> None:
    found = {"a": written("<think>good", 3), "b": written("so", 1, ("no_open", "no_close"))}
    finding = _answers(found)
    assert (finding.said, finding.verdict) == (
        "4 of 6 are parsed; of a: '<think>good', cut at its limit",
        Verdict.WARNING,
    )
    rejected = Rejection(Reason.UNPARSABLE, "no_open: what", codes=("no_open",) * 2)
    assert _answers({**found, "c": rejected}).said == "4 of 8 are parsed; of c: no_open: what"
    assert _answers({"c": rejected}).verdict is Verdict.FAIL
    assert _answers({"a": written("x", 2)}).verdict is Verdict.OK


def test_scores_must_differ() -> None:
    assert _spread([{"quality": 1.0}]) == []
    [finding] = _spread([{"quality": 1.0, "noise": 3.0}, {"quality": 4.5, "noise": 3.0}])
    assert (finding.said, finding.verdict) == ("quality 1.00 to 4.50, noise 3.00 to 3.00", Verdict.FAIL)
    assert graded(float("nan"), 0.5, 0.1) is Verdict.FAIL


def test_a_fake_has_no_model_to_look_at(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "--checkpoint", "fake:", "--rubric", RUBRIC]) == 2
    assert "has no model that could be checked" in capsys.readouterr().err


@pytest.mark.slow
def test_other_words_with_the_promised_numbers_are_a_warning(tmp_path: Path) -> None:
    folder = save_writing(tmp_path / "writing")
    manifest = write_manifest(folder, "writing.toml", "float32", threads=1)
    config = AssessorConfig(checkpoint=str(folder), threads=1)

    def golden() -> Finding:
        findings = quick_check(describe(config, None, ImageLimits()), config)
        return next(one for one in findings if one.name == "golden scores")

    assert (golden().verdict, golden().said) == (Verdict.OK, "3 scores of 3 images within 0.001")
    first = manifest.golden[0].model_copy(update={"text_sha256": "0" * 64})
    save_manifest(folder, manifest.model_copy(update={"golden": (first, *manifest.golden[1:])}))
    assert golden().verdict is Verdict.WARNING
    assert golden().said.endswith("but the words about room-0062 are others")
