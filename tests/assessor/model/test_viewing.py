"""Questions that see some of an image's tokens, in each way that prompts go through a model.

Tests iqa_core/assessor/encoders/views.py and iqa_core/assessor/model/prefix_sharing/masks.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.encoders.views import with_views
from iqa_core.assessor.model.asking import make_encoder
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.level_head import LevelHead
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.ovis2_5.registration import register_ovis2_5
from iqa_core.assessor.preparing.preparers import SmartResizePreparer, make_preparer
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.assessor.protocol import View, Viewed
from iqa_core.errors import CallerError
from iqa_core.grounding.tokens import TokenGrid
from iqa_core.records import Assessment, ImageLimits
from iqa_core.rubrics import load_rubric
from tests.assessor.ovis2_5.golden import FOLDER
from tests.assessor.tiny import RUBRIC, make_images

pytestmark = pytest.mark.slow

IMAGES = make_images((64, 64), (112, 56), (40, 150))
FAMILIES = ("qwen2", "qwen", "qwen3", "ovis2_5")


@pytest.fixture(scope="session")
def ovis2_5() -> Path:
    register_ovis2_5()
    return FOLDER


class Asked:
    """A model with a level head, and three images with views of unlike sizes: all tokens, one, and every third."""

    def __init__(self, folder: Path) -> None:
        rubric, processor = load_rubric(RUBRIC), load_processor(folder)
        preparer = make_preparer(folder, rubric, ImageLimits(), None if folder != FOLDER else 448 * 448)
        assert isinstance(preparer, SmartResizePreparer)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.model.set_output_embeddings(LevelHead(self.model.get_output_embeddings(), range(50, 55)))
        prompts = [build_prompt(processor, question, rubric.system) for question in rubric.questions]
        self.encoder = make_encoder(processor, prompts, self.model, preparer)
        self.images = [preparer.prepare(image) for image in IMAGES]
        self.tokens = [rows * columns for rows, columns in map(preparer.grid, self.images)]

    @property
    def batch(self) -> EncodedBatch:
        """Encoded anew: the packed way takes other patches."""
        views = [[tuple(range(count)), (count - 2,), tuple(range(0, count, 3))] for count in self.tokens]
        assert self.encoder.image_token is not None
        return with_views(self.encoder(self.images), self.encoder.image_token, views, [[2, 0, 1], [2, 0], [0]])


@pytest.mark.parametrize("name", FAMILIES)
def test_all_ways_keep_a_question_to_its_view(name: str, request: pytest.FixtureRequest) -> None:
    """Fewer keys in packed sequences, a mask behind a cache: both give what a mask over the whole prompt gives."""
    asked = Asked(request.getfixturevalue(name))
    plain = SeparatePrompts(asked.model)
    ordinary = plain.logits(asked.encoder(asked.images)).softmax(-1)
    expected = plain.logits(asked.batch).softmax(-1)
    torch.testing.assert_close(expected[:, :3], ordinary[:, [2, 0, 1]], atol=1e-5, rtol=0)
    assert (expected[:, 3:5] - expected[:, :2]).abs().amax() > 1e-3, "a single token says something else"
    cached = PrefixCaching(asked.model).logits(asked.batch).softmax(-1)
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=0)
    packed = PackedSequences.of(asked.model, [asked.encoder])
    assert packed is not None
    torch.testing.assert_close(packed.logits(asked.batch).softmax(-1), expected, atol=1e-5, rtol=0)


def test_what_a_view_lacks_cannot_change_the_answer(qwen: Path) -> None:
    """Later tokens of the image are replaced: no token of the view has seen them, and no question does."""
    asked = Asked(qwen)
    image_token, plain = asked.encoder.image_token, SeparatePrompts(asked.model)
    assert image_token is not None
    views = [[tuple(range(count // 2)), tuple(range(count))] for count in asked.tokens]

    def logits() -> torch.Tensor:
        return plain.logits(with_views(asked.encoder(asked.images), image_token, views, [[0]] * len(views[0])))

    before = logits()
    half = [count // 2 for count in asked.tokens]
    places = [prompt.prefix.index(image_token) for prompt in asked.encoder(asked.images).prompts]

    def replace_later(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        for i, (place, own, count) in enumerate(zip(places, half, asked.tokens, strict=True)):
            inputs["inputs_embeds"][i, place + own : place + count] = 3.0

    asked.model.get_decoder().register_forward_pre_hook(replace_later, with_kwargs=True)
    after = logits()
    torch.testing.assert_close(after[:, 0], before[:, 0], atol=1e-5, rtol=0)
    assert (after[:, 1] - before[:, 1]).abs().amin(0).max() > 1e-3


@pytest.mark.parametrize(("name", "side"), [("qwen2", 28), ("qwen", 28), ("qwen3", 32)])
def test_tokens_go_row_by_row_as_the_model_itself_counts_them(
    name: str, side: int, request: pytest.FixtureRequest
) -> None:
    """By its own rotary positions, whose second and third axis are row and column."""
    asked = Asked(request.getfixturevalue(name))
    for image, prompt in zip(asked.images, asked.batch.prompts, strict=True):
        rows, columns = image.shape[0] // side, image.shape[1] // side
        assert prompt.positions is not None
        found = prompt.positions[1:, -rows * columns :]
        expected = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
        torch.testing.assert_close(found - found[:, :1], expected)


def test_ovis2_5_goes_row_by_row(ovis2_5: Path) -> None:
    """By the patches of each token, of an image in which every cell of 32 pixels has a grey of its own."""
    asked = Asked(ovis2_5)
    shades = np.arange(15, dtype=np.uint8).reshape(3, 5) * 16
    pixels = np.ascontiguousarray(shades.repeat(32, 0).repeat(32, 1)[..., None].repeat(3, 2))
    tokens = asked.encoder.patches(pixels).reshape(15, -1)  # type: ignore[attr-defined]
    assert (tokens.amax(1) == tokens.amin(1)).all()
    assert tokens[:, 0].diff().gt(0).all()


@pytest.fixture(scope="module")
def assessor(qwen: Path) -> TransformersAssessor:
    loaded = load_assessor(str(qwen), "interior-v2", threads=1)
    assert isinstance(loaded, TransformersAssessor)
    return loaded


def scores(results: list[Any]) -> np.ndarray:
    return np.array([result.scores_K for result in results])


def test_views_in_any_company_and_order_give_the_same(assessor: TransformersAssessor) -> None:
    """Images with unlike numbers of views, one without any; all tokens give the ordinary score."""
    images = [assessor.preparer.prepare(image) for image in make_images((112, 112), (56, 160), (90, 90))]
    names = ["distortion", "lighting"]
    first, _, third = (np.prod(assessor.view_grid(image)) for image in images)
    everything, corner, middle = tuple(range(first)), (0, 1, 4, 5), (5, 6, 9, 10)
    views = [[everything, corner, middle], [], [tuple(range(third))]]
    found, none, other = assessor.assess_views(images, views, names)
    assert none == []
    assert isinstance(found, list)
    assert isinstance(other, list)
    ordinary = [assessor.rubric.names.index(name) for name in ("lighting", "distortion")]
    whole = [result for result in assessor.assess(images) if isinstance(result, Assessment)]
    np.testing.assert_allclose(scores(found)[0], whole[0].scores_K[ordinary], atol=1e-5)
    np.testing.assert_allclose(scores(other)[0], whole[2].scores_K[ordinary], atol=1e-5)
    [alone] = assessor.assess_views(images[:1], [[middle]], names)
    [turned] = assessor.assess_views(images[:1], [[middle, everything, corner, corner]], ["distortion"])
    assert isinstance(alone, list)
    assert isinstance(turned, list)
    np.testing.assert_allclose(scores(alone), scores(found)[2:], atol=1e-5)
    np.testing.assert_allclose(scores(turned)[:, 0], scores(found)[[2, 0, 1, 1], 1], atol=1e-5)


def test_one_forward_gives_assessments_and_views(assessor: TransformersAssessor) -> None:
    """Whatever views an image has, and in whatever company: both are those that each call alone gives."""
    images = [assessor.preparer.prepare(image) for image in make_images((112, 112), (56, 160), (90, 90))]
    views: list[list[View]] = [[(0, 1, 4, 5), (5, 6, 9, 10)], [], [(2,), (0, 3)]]
    forwards = list[int]()
    hook = assessor.model.model.visual.register_forward_pre_hook(lambda *_: forwards.append(1))
    found = assessor.assess_with_views(images, views, ["distortion"])
    hook.remove()
    assert len(forwards) == len({len(own) for own in views}), "images with as many views are one batch"
    apart = assessor.assess_views(images, views, ["distortion"])
    for both, whole, own in zip(found, assessor.assess(images), apart, strict=True):
        assert isinstance(both, Viewed)
        assert isinstance(both.assessment, Assessment)
        assert isinstance(whole, Assessment)
        assert isinstance(own, list)
        np.testing.assert_allclose(both.assessment.scores_K, whole.scores_K, atol=1e-5)
        np.testing.assert_allclose(both.assessment.stds_K, whole.stds_K, atol=1e-5)
        for mine, expected in zip(both.assessment.probs_K, whole.probs_K, strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-5)
        assert len(both.views) == len(own)
        if own:
            np.testing.assert_allclose(scores(both.views), scores(own), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_views_and_names_beside_them_change_no_assessments_and_no_views(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Quarters and a box, of one dimension and of two, or none at all."""
    folder = request.getfixturevalue(name)
    assessor = load_assessor(str(folder), "interior-v2", threads=1, max_pixels=448 * 448 if folder == FOLDER else None)
    assert isinstance(assessor, TransformersAssessor)
    images = [assessor.preparer.prepare(image) for image in make_images((112, 112), (100, 160), (130, 100))]
    grids = [TokenGrid(*assessor.view_grid(image)) for image in images]
    quarters = [[*grid.cells(2)] for grid in grids]
    with_box = [[(0, 1, grid.columns), *own] for grid, own in zip(grids, quarters, strict=True)]
    ordinary = assessor.assess(images)
    found = [
        assessor.assess_with_views(images, views, names)
        for views, names in (
            ([[]] * 3, ["lighting"]),
            (quarters, ["lighting"]),
            (with_box, ["distortion", "lighting"]),
        )
    ]
    for i, expected in enumerate(ordinary):
        none, bare, boxed = [one[i] for one in found if isinstance(one[i], Viewed)]
        assert isinstance(none, Viewed)
        assert isinstance(bare, Viewed)
        assert isinstance(boxed, Viewed)
        np.testing.assert_allclose(
            scores([one.assessment for one in (none, bare, boxed)]), scores([expected] * 3), atol=1e-5
        )
        assert none.views == []
        np.testing.assert_allclose(scores(boxed.views)[1:, 0], scores(bare.views)[:, 0], atol=1e-5)


@pytest.mark.parametrize("view", [(), (1, 1), (2, 1), (-1, 0), (15, 16)])
def test_a_view_that_is_none_of_the_image_is_refused(assessor: TransformersAssessor, view: tuple[int, ...]) -> None:
    image = assessor.preparer.prepare(make_images((112, 112))[0])
    with pytest.raises(ValueError, match="of an image of 16 tokens"):
        assessor.assess_views([image], [[view]], ["lighting"])


def test_a_dimension_that_the_rubric_lacks_is_refused(assessor: TransformersAssessor) -> None:
    with pytest.raises(ValueError, match="taste is asked; there are layout"):
        assessor.assess_views([], [], ["lighting", "taste"])


def test_too_little_memory_halves_images_then_views(qwen: Path) -> None:
    assessor = load_assessor(str(qwen), "interior-v2", threads=1)
    assert isinstance(assessor, TransformersAssessor)
    images = [assessor.preparer.prepare(image) for image in make_images((112, 112), (112, 112))]
    views, tokens = [[(0,), (1, 2), (3, 4, 5)]] * 2, list[int]()
    expected = assessor.assess_views(images, views, ["lighting"])

    def fail_above_100(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        tokens.append(inputs["input_ids"].numel())
        if tokens[-1] > 100:
            raise torch.OutOfMemoryError("no room")

    assessor.model.register_forward_pre_hook(fail_above_100, with_kwargs=True)
    for before, after in zip(expected, assessor.assess_views(images, views, ["lighting"]), strict=True):
        assert isinstance(before, list)
        assert isinstance(after, list)
        np.testing.assert_allclose(scores(after), scores(before), atol=1e-5)
    assert max(tokens) > 100 >= min(tokens)


def test_layers_with_windows_are_refused(qwen2: Path, tmp_path: Path) -> None:
    """A mask of four dimensions is taken as it is, and would lift the windows."""
    folder = Path(shutil.copytree(qwen2, tmp_path / "windows"))
    config = json.loads((folder / "config.json").read_text())
    kinds = {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}
    config["text_config"] |= kinds
    (folder / "config.json").write_text(json.dumps(config))
    assessor = load_assessor(str(folder), "interior-v2", threads=1)
    assert isinstance(assessor, TransformersAssessor)
    with pytest.raises(CallerError, match="qwen2_vl with sliding windows"):
        assessor.view_grid(assessor.preparer.prepare(IMAGES[0]))


@pytest.mark.parametrize("name", ["internvl", "qwen3_5", "gemma3"])
def test_other_families_refuse_by_name_and_offer_tiles(name: str, request: pytest.FixtureRequest) -> None:
    """Tiles with an overview; a recurrent state that has seen every token; tokens that see each other both ways."""
    assessor = load_assessor(str(request.getfixturevalue(name)), "interior-v2", threads=1)
    assert isinstance(assessor, TransformersAssessor)
    image = assessor.preparer.prepare(IMAGES[0])
    for ask in (lambda: assessor.view_grid(image), lambda: assessor.assess_views([image], [[(0,)]], ["lighting"])):
        with pytest.raises(CallerError, match=f"{name}.*ask about tiles instead"):
            ask()


def test_texts_in_slots_are_asked_about_views_too(qwen: Path, shown: Path) -> None:
    assessor = load_assessor(str(qwen), str(shown), threads=1)
    assert isinstance(assessor, TransformersAssessor)
    image, texts = assessor.preparer.prepare(IMAGES[0]), [{"prompt": "a dog", "style": "noir"}]
    rows, columns = assessor.view_grid(image)
    [found] = assessor.assess_views([image], [[tuple(range(rows * columns))]], ["faithful", "good"], texts)
    [whole] = assessor.assess([image], texts)
    assert isinstance(found, list)
    assert isinstance(whole, Assessment)
    np.testing.assert_allclose(scores(found)[0], whole.scores_K[[0, 2]], atol=1e-5)


def test_batches_are_bounded_by_texts_that_every_question_about_a_view_has(qwen: Path, shown: Path) -> None:
    """A text of 830 tokens is in each of two questions about each of two views: two images fit, five would not."""
    assessor = load_assessor(str(qwen), str(shown), threads=1)
    assert isinstance(assessor, TransformersAssessor)
    assessor._batch_tokens = bound = 9_000
    texts = [{"prompt": "a dog on a chair " * 80, "style": "noir"}] * 6
    images = [assessor.preparer.prepare(image) for image in make_images(*[(64, 64)] * 6)]
    seen = list[int]()

    def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        seen.append(inputs["input_ids"].numel())

    assessor.model.register_forward_pre_hook(count, with_kwargs=True)
    assessor.assess_views(images, [[(0,), (1, 2)]] * 6, ["faithful", "style"], texts)
    assert max(seen) <= bound
    assert len(seen) == 3
    assessor._batch_tokens = bound = 14_000
    seen.clear()
    assessor.assess_with_views(images, [[(0,), (1, 2)]] * 6, ["faithful", "style"], texts)
    assert max(seen) <= bound
    assert len(seen) == 3, "two images, whose seven questions have the text each"


def test_a_question_about_a_view_is_counted_with_its_own_text_alone(assessor: TransformersAssessor) -> None:
    """All four questions' texts for each would make batches of two."""
    images = [assessor.preparer.prepare(image) for image in make_images(*[(112, 112)] * 6)]
    views: list[list[View]] = [[(0, 1), (2, 3), (4, 5), (6, 7)]] * 6
    forwards, before = list[int](), assessor._batch_tokens
    hook = assessor.model.model.visual.register_forward_pre_hook(lambda *_: forwards.append(1))
    assessor._batch_tokens = 3_000
    try:
        assessor.assess_with_views(images, views, ["lighting"])
    finally:
        assessor._batch_tokens = before
        hook.remove()
    assert len(forwards) == 1
