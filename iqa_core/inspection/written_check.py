"""A described checkpoint with a written rubric -> findings: whether it answers as asked, and tells images apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import Scores, other_texts, sample_results, scores_by_image
from iqa_core.assessor.load import golden_of, load_unverified
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.inspection.findings import (
    SPREAD_LEAST,
    SPREAD_OK,
    Finding,
    golden_finding,
    graded,
    require_model,
    rubric_finding,
)
from iqa_core.records import Assessment, Finish, Rejection

PARSED_OK, PARSED_LEAST = 0.99, 0.5
"""Share of answers that are parsed; below the second, most images would be rejected."""

SHOWN_CHARACTERS = 120


def written_findings(spec: AssessorSpec, config: AssessorConfig, images: Sequence[str]) -> list[Finding]:
    """What the assessor writes about bundled images. Raises CallerError when the checkpoint cannot be loaded."""
    require_model(spec)
    manifest = read_manifest(materialise(spec.checkpoint, spec.storage_options))
    found = sample_results(load_unverified(spec, config), images)
    scores = scores_by_image(found, spec.rubric.names)
    golden = tuple(entry for entry in golden_of(spec) if entry.image in images)
    return [
        rubric_finding(spec, manifest),
        _answers(found),
        *_spread([one for one in scores.values() if not isinstance(one, Rejection)]),
        golden_finding(golden, scores, spec, other_texts(golden, found)),
    ]


def _answers(found: Mapping[str, Assessment | Rejection]) -> Finding:
    """The share of answers that are parsed, and how one begins: the first that is not, if there is one."""
    parsed = sum(one.written.parsed for one in found.values() if isinstance(one, Assessment) and one.written)
    failed = sum(len(one.codes if isinstance(one, Rejection) else _codes(one)) for one in found.values())
    bad = [image for image, one in found.items() if isinstance(one, Rejection)]
    image = bad[0] if bad else next(iter(found))
    told = f"{parsed} of {parsed + failed} are parsed; of {image}: {_begin(found[image])}"
    return Finding("answers", graded(parsed / max(parsed + failed, 1), PARSED_OK, PARSED_LEAST), told)


def _codes(one: Assessment) -> Sequence[str]:
    return one.written.codes if one.written else ()


def _begin(one: Assessment | Rejection) -> str:
    if isinstance(one, Rejection):
        return one.detail[:SHOWN_CHARACTERS]
    assert one.written is not None
    cut = ", cut at its limit" if one.written.finish is Finish.LENGTH else ""
    return f"{one.written.answers[0][:SHOWN_CHARACTERS]!r}{cut}"


def _spread(scores: Sequence[Scores]) -> list[Finding]:
    """Whether scores of images from awful to fine differ; nothing where fewer than two images have any."""
    if len(scores) < 2:
        return []
    columns = {name: [one[name] for one in scores] for name in scores[0]}
    told = ", ".join(f"{name} {min(values):.2f} to {max(values):.2f}" for name, values in columns.items())
    spread = min(max(values) - min(values) for values in columns.values())
    return [Finding("spread", graded(spread, SPREAD_OK, SPREAD_LEAST), told)]
