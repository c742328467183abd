"""A described assessor -> nothing, or why no question to it can see a part of an image; no torch, nothing is loaded."""

from __future__ import annotations

from typing import Any

from iqa_core.assessor.checkpoint.files import materialise, read_json
from iqa_core.assessor.fake import NO_FAKE_VIEWS, PREFIX, FakeOptions
from iqa_core.assessor.families import VIEWED
from iqa_core.assessor.preparing.preparers import SmartResizePreparer
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.rubrics import WrittenRubric


def require_views(spec: AssessorSpec, checkpoint: str) -> None:
    """Raises CallerError where the assessor has no views.

    checkpoint: as its settings name it. Whether all layers of the model see whole prompts is looked at as far as the
    checkpoint's config.json says it; the loaded model knows (`TransformersAssessor.view_grid`).
    """
    if isinstance(spec.rubric, WrittenRubric):
        raise CallerError(
            f"rubric {spec.rubric.id} is written, and what is written about a part of an image is no score; name one "
            "with closed sets of answers"
        )
    if checkpoint.startswith(PREFIX):
        if FakeOptions.parse(checkpoint).view_px is None:
            raise CallerError(NO_FAKE_VIEWS)
        return
    config = read_json(materialise(checkpoint, spec.storage_options) / "config.json")
    model_type, windows = str(config.get("model_type")), _has_windows(config)
    if model_type not in VIEWED or windows or not isinstance(spec.preparer, SmartResizePreparer):
        raise no_views_in(model_type, windows)


def no_views_in(model_type: str, windows: bool) -> CallerError:
    """The error for a family in which no question can be kept from tokens. windows: of its layers."""
    return CallerError(
        f"a question to {model_type}{' with sliding windows' * windows} cannot be kept from some of an image's "
        f"tokens; it can be with {', '.join(sorted(VIEWED))} whose layers see whole prompts; ask about tiles "
        "instead, which are parts of the image as images of their own"
    )


def _has_windows(config: dict[str, Any]) -> bool:
    text = config.get("text_config") or config
    return bool(text.get("use_sliding_window")) or "sliding_attention" in (text.get("layer_types") or ())
