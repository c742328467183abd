"""What a check found, with its verdict -> lines for people; findings that rubrics of all kinds have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores
from iqa_core.assessor.fake import PREFIX
from iqa_core.assessor.golden import TOLERANCE, Scores, differences
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.questions import own_scales
from iqa_core.records import Rejection

SPREAD_OK, SPREAD_LEAST = 0.1, 0.01
"""Largest minus smallest score over images from awful to fine; below the second the image does not reach the model."""
SHOWN_FAULTS = 4


class Verdict(StrEnum):
    """What a finding means for the checkpoint."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "FAIL"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, and what came out."""

    name: str
    verdict: Verdict
    said: str
    """What was found, with its numbers, in one line."""
    forbids_loading: bool = False
    """Whether an assessor of this checkpoint refuses to load for it."""


def require_model(spec: AssessorSpec) -> None:
    """Raises CallerError where there is no model."""
    if spec.checkpoint.startswith(PREFIX):
        raise CallerError(f"{spec.checkpoint} has no model that could be checked; give a checkpoint")


def rubric_finding(spec: AssessorSpec, manifest: CheckpointManifest | None) -> Finding:
    """Whether the model is asked in the words that it was trained on, as far as that is known."""
    trained_on = manifest.fingerprint.get("rubric") if manifest else None
    if manifest is None or trained_on is None:
        return Finding(
            "rubric", Verdict.OK, f"{spec.rubric.id}; no assessor.toml says by digest what it was trained on"
        )
    if trained_on != spec.rubric.digest:
        own = manifest.rubric
        said = f"{spec.rubric.id}, but its assessor.toml says {own}: other words than it was trained on"
        return Finding("rubric", Verdict.WARNING, said)
    return Finding("rubric", Verdict.OK, f"{spec.rubric.id}, the one that it was trained on")


def graded(value: float, ok_from: float, least: float) -> Verdict:
    """The verdict on a value of which more is better; NaN fails."""
    if value >= ok_from:
        return Verdict.OK
    return Verdict.WARNING if value >= least else Verdict.FAIL


def golden_finding(
    golden: Sequence[GoldenScores],
    found: Mapping[str, Scores | Rejection],
    spec: AssessorSpec,
    others: Sequence[str] = (),
) -> Finding:
    """How scores of bundled images compare with golden ones. others: images that are written about in other words."""
    name = "golden scores"
    if not golden:
        return Finding(name, Verdict.SKIPPED, "assessor.toml has none that were made with these settings")
    dtype = spec.fingerprint_parts["dtype"]
    if faults := list(differences(golden, found, dtype, own_scales(spec.rubric.columns))):
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        return Finding(name, Verdict.FAIL, "; ".join(faults[:SHOWN_FAULTS]) + more, forbids_loading=True)
    count = sum(len(entry.scores) for entry in golden)
    told = f"{count} scores of {len(golden)} images within {TOLERANCE[dtype]:g}"
    if others:
        return Finding(name, Verdict.WARNING, f"{told}, but the words about {', '.join(others)} are others")
    return Finding(name, Verdict.OK, told)


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any finding is a failure."""
    return any(finding.verdict is Verdict.FAIL for finding in findings)


def finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line per finding, and the verdict of all."""
    for finding in findings:
        yield f"{finding.name:<14} {finding.verdict:<8} {finding.said}"
    warned = sum(finding.verdict is Verdict.WARNING for finding in findings)
    warnings = f", {warned} warning{'s' * (warned > 1)}" if warned else ""
    yield ""
    yield f"verdict        {'FAIL' if failed(findings) else 'pass' + warnings}"
