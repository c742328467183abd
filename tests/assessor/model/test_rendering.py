"""The digest of a written rubric's prompt: of the ids that the model is given, and in the fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.asking import make_encoder
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.model.rendering import SIDE, prompt_digest
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.assessor.prompts.chat import written_prompt
from iqa_core.errors import CallerError
from iqa_core.records import ImageHeader, ImageLimits, RgbImage
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from tests.assessor.ovis2_5.golden import FOLDER as OVIS2_5
from tests.assessor.tiny import FAMILIES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]


def written(**changes: object) -> WrittenRubric:
    rubric = load_any_rubric("perception-v1")
    return WrittenRubric.model_validate(rubric.model_dump() | changes)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    return OVIS2_5 if request.param == "ovis2_5" else Path(request.getfixturevalue(request.param))


@torch.inference_mode()
@pytest.mark.parametrize("folder", [*FAMILIES, "paligemma", "ovis2_5"], indirect=True)
def test_the_digest_is_of_the_ids_that_the_model_is_given(folder: Path) -> None:
    spec = describe(AssessorConfig(checkpoint=str(folder), dtype="float32"), "perception-v1", ImageLimits())
    assert isinstance(spec.preparer, ModelPreparer)
    assert isinstance(spec.rubric, WrittenRubric)
    processor, model = load_processor(folder), load_model(folder, "float32", "cpu", 1)
    encoder = make_encoder(processor, [written_prompt(processor, spec.rubric, {})], model, spec.preparer)
    grey = RgbImage(np.full((SIDE, SIDE, 3), 128, np.uint8), ImageHeader(SIDE, SIDE, "png", 1))
    [prompt] = encoder([spec.preparer.prepare(grey)]).prompts
    ids = [*prompt.prefix, *prompt.suffixes[0]]
    assert spec.fingerprint_parts["prompt_tokens"] == hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def test_words_and_what_renders_them_change_the_digest(qwen: Path) -> None:
    known = prompt_digest(qwen, written())
    assert prompt_digest(qwen, written(domain="Other pictures.")) == known
    others = written(question="How good is {prompt}?", slots=["prompt"]), written(parts=("text", "image"))
    assert len({known, *(prompt_digest(qwen, rubric) for rubric in others)}) == 3


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("no image at all", "the checkpoint's processor cannot take the rubric's prompt: .*image"),
        ("{{ raise_exception('No systems.') }}", "the checkpoint's chat template cannot be applied: No systems."),
        ("{{ messages[", "the checkpoint's chat template cannot be applied: "),
    ],
)
def test_a_chat_template_that_fits_no_image_is_refused_in_words(
    template: str, words: str, idefics: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "templated"
    shutil.copytree(idefics, folder)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CallerError, match=words):
        describe(AssessorConfig(checkpoint=str(folder)), "perception-v1", ImageLimits())


def test_closed_sets_have_no_such_part(qwen: Path) -> None:
    config = AssessorConfig(checkpoint=str(qwen))
    assert "prompt_tokens" not in describe(config, "interior-v2", ImageLimits()).fingerprint_parts
    fake = AssessorConfig(checkpoint="fake:")
    assert "prompt_tokens" not in describe(fake, "perception-v1", ImageLimits()).fingerprint_parts
