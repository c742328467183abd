"""The model against the golden values, and as a model of transformers: cache, loss, saving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.ovis2_5.configuration import Ovis2_5Config
from iqa_core.assessor.ovis2_5.modeling import Ovis2_5ForConditionalGeneration
from tests.assessor.ovis2_5.golden import FOLDER, Golden

pytestmark = pytest.mark.slow

ALL = (0, 1, 2, 3)


@pytest.fixture
def small(golden: Golden) -> Any:
    """The inputs of the smallest case."""
    return golden.inputs(3)


def last_logits(golden: Golden, *cases: int) -> np.ndarray:
    """Logits at the last real position, shape (cases, vocabulary)."""
    inputs = golden.inputs(*cases)
    with torch.inference_mode():
        logits = golden.model(**inputs).logits
    return np.asarray(logits[torch.arange(len(cases)), inputs["attention_mask"].sum(1) - 1].numpy())


@pytest.mark.parametrize("case", ALL)
def test_every_stage_agrees_with_the_golden_values(golden: Golden, case: int) -> None:
    expected, inputs = golden.cases[case], golden.inputs(case)
    assert inputs["grid_thws"].tolist() == [expected["grid_thw"]]
    with torch.inference_mode():
        features = golden.model.get_image_features(inputs["pixel_values"], inputs["grid_thws"])
        logits = golden.model(**inputs).logits[0, -1].numpy()
    [visual] = features.pooler_output
    assert len(visual) == expected["num_visual_tokens"]
    for name, found in {
        f"pixel_values_{case}_head": inputs["pixel_values"],
        f"vit_last_hidden_{case}_head": features.last_hidden_state,
        f"visual_embeds_{case}_head": visual,
    }.items():
        head = golden.tensors[name]
        np.testing.assert_allclose(found[: len(head)].numpy(), head, atol=1e-4, rtol=0, err_msg=name)
    np.testing.assert_allclose(logits, golden.tensors[f"last_logits_{case}"], atol=1e-4, rtol=0)
    words = expected["rating_logits"]
    ids = [golden.processor.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]
    np.testing.assert_allclose(logits[ids], list(words.values()), atol=1e-4, rtol=0)


def test_four_images_of_four_sizes_at_once_equal_them_alone(golden: Golden) -> None:
    alone = np.concatenate([last_logits(golden, case) for case in ALL])
    np.testing.assert_allclose(last_logits(golden, 2, 0, 3, 1)[[1, 3, 0, 2]], alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_visual_words_in_chunks_are_the_same_embeddings(golden: Golden, small: Any) -> None:
    features = golden.model.get_image_features(small["pixel_values"], small["grid_thws"])
    blocks = features.last_hidden_state.view(216, 4 * 48)
    chunked = golden.model.embed_visual(blocks, word_bytes=4 * 256 * 7)  # 7 tokens at a time
    torch.testing.assert_close(chunked, features.pooler_output[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_prompt_in_two_steps_over_a_cache_gives_the_same_logits(golden: Golden, small: Any) -> None:
    whole = golden.model(**small, logits_to_keep=1)
    assert whole.logits.shape[1] == 1
    ids, cut = small["input_ids"], small["input_ids"].shape[1] - 9
    images = {name: small[name] for name in ("pixel_values", "grid_thws")}
    first = golden.model(input_ids=ids[:, :cut], **images, use_cache=True)
    rest = golden.model(input_ids=ids[:, cut:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits[:, -1:], whole.logits, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_embeddings_may_be_given_instead_of_ids(golden: Golden, small: Any) -> None:
    embeds = golden.model.get_inputs_embeds(small["input_ids"], small["pixel_values"], small["grid_thws"])
    whole = golden.model(**small)
    torch.testing.assert_close(golden.model(inputs_embeds=embeds).logits, whole.logits, atol=1e-6, rtol=0)
    indicators = golden.model.vte.weight[-4:-2]
    first = int((small["input_ids"][0] == -301).nonzero())
    torch.testing.assert_close(embeds[0, [first, first + 217]], indicators, atol=0, rtol=0)


def test_generation_goes_on_greedily_with_and_without_a_cache(golden: Golden, small: Any) -> None:
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 377}
    cached = golden.model.generate(**small, **settings)
    assert torch.equal(cached, golden.model.generate(**small, **settings, use_cache=False))
    first = last_logits(golden, 3)[0].argmax()
    assert cached[0, small["input_ids"].shape[1]] == first


def test_generation_stops_where_the_language_model_says(golden: Golden) -> None:
    """Released files say so in llm_config, where transformers does not look."""
    assert golden.model.generation_config.eos_token_id == 376


def test_several_sequences_of_one_prompt_are_refused_rather_than_mixed_up(golden: Golden, small: Any) -> None:
    with pytest.raises(ValueError, match="repeat prompts"):
        golden.model.generate(**small, num_return_sequences=2, do_sample=True, max_new_tokens=1)


def test_a_loss_reaches_every_trainable_part(golden: Golden, small: Any) -> None:
    model = Ovis2_5ForConditionalGeneration(Ovis2_5Config.from_pretrained(FOLDER))
    labels = small["input_ids"].clone()
    labels[:, :-3] = -100
    model(**small, labels=labels).loss.backward()
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert untouched == {f"visual_tokenizer.vit.vision_model.post_layernorm.{name}" for name in ("weight", "bias")}


@pytest.mark.parametrize("change", ["image", "place"])
def test_places_and_visual_tokens_must_agree(golden: Golden, small: Any, change: str) -> None:
    inputs = dict(small)
    if change == "image":
        inputs["pixel_values"] = inputs["grid_thws"] = None
    else:
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == -300, 5)
    with pytest.raises(ValueError, match="216" if change == "place" else "but the images have 0"):
        golden.model(**inputs)


def tie(folder: Path, *, both_names: bool) -> Path:
    """The golden checkpoint with one matrix for input and output, as the 2B one has."""
    shutil.copytree(FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    del weights["llm.lm_head.weight"]
    if both_names:
        weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def names_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> dtype and shape, over all files of a checkpoint."""
    tensors = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
    return {name: (str(t.dtype), tuple(t.shape)) for name, t in tensors.items()}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["50GB", "300KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_checkpoint_is_of_the_released_kind(
    tmp_path: Path, tied: bool, shard: str, dtype: torch.dtype, golden: Golden
) -> None:
    """Names, one file or shards with an index; loaded again, nothing is missing and everything is equal."""
    source = tie(tmp_path / "tied", both_names=False) if tied else FOLDER
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
    tmp_path = tmp_path / "saved"
    assert (model.llm.lm_head.weight is model.llm.model.embed_tokens.weight) == tied
    model.save_pretrained(tmp_path, max_shard_size=shard)
    expected = {name: (str(dtype), shape) for name, (_, shape) in names_of(FOLDER).items()}
    if tied:
        del expected["llm.lm_head.weight"]
    assert names_of(tmp_path) == expected
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "300KB")
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == str(dtype).removeprefix("torch.")
    again, loading = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_a_tied_checkpoint_may_bring_its_output_matrix_along(tmp_path: Path, golden: Golden) -> None:
    """Some are written with both names for one matrix."""
    source = tie(tmp_path / "tied", both_names=True)
    model, loading = AutoModelForImageTextToText.from_pretrained(source, output_loading_info=True)
    assert not any(loading.values())
    assert model.llm.lm_head.weight is model.llm.model.embed_tokens.weight
