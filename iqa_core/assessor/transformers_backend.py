"""Prepared images -> level logits -> assessments, by any image-text-to-text checkpoint that transformers knows.

Each dimension is one forward pass over a batch of prompts (image, query, beginning of the answer). The output matrix
is cut down to the rows of the level words (and their bias), in float32: the model's own forward applies its scale or
soft cap to them, and the logits of the rest of the vocabulary are never computed.

Shape suffixes: N images, K dimensions, L levels, V rows of the output matrix that are kept, D width of the model,
T tokens of the longest prompt in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.levels import level_token_ids
from iqa_core.assessor.models import load_model
from iqa_core.assessor.preparers import FullSizePreparer, SmartResizePreparer
from iqa_core.assessor.processors import load_processor
from iqa_core.assessor.prompts import adds_special_tokens, build_prompt
from iqa_core.records import Assessment, Reason, Rejection
from iqa_core.rubrics import Rubric
from iqa_core.scoring import assessment_of

TOO_LARGE = Rejection(Reason.ASSESSOR_FAILED, "the image alone does not fit into the memory of the device")


class LevelHead(torch.nn.Module):
    """A few rows of an output matrix, in float32 whatever the model computes in."""

    def __init__(self, head: torch.nn.Module, ids_V: Sequence[int]) -> None:
        super().__init__()
        bias = getattr(head, "bias", None)
        self.weight_VD = torch.nn.Parameter(_rows(head.weight, ids_V), requires_grad=False)
        self.bias_V = None if bias is None else torch.nn.Parameter(_rows(bias, ids_V), requires_grad=False)

    def forward(self, hidden_NTD: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden_NTD.float(), self.weight_VD, self.bias_V)


class TransformersAssessor:
    """A loaded checkpoint with its rubric; obeys `iqa_core.assessor.protocol.Assessor`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        rubric: Rubric,
        preparer: FullSizePreparer | SmartResizePreparer,
        batch_tokens: int,
    ) -> None:
        """Takes the model over: its output matrix is replaced by the rows of the level words.

        Raises CallerError when the level words cannot be told apart by one token each.
        """
        self.rubric = rubric
        self.preparer = preparer
        self._batch_tokens = batch_tokens
        self._processor = processor
        self._prompts_K = [build_prompt(processor, rubric, dimension, rubric.system) for dimension in rubric.dimensions]
        ids_KL = [level_token_ids(processor.tokenizer, prompt, rubric.levels) for prompt in self._prompts_K]
        ids_V = sorted({token for ids in ids_KL for token in ids})
        self._columns_KL = [[ids_V.index(token) for token in ids] for ids in ids_KL]
        model.set_output_embeddings(LevelHead(model.get_output_embeddings(), ids_V))
        self._model = model.eval()

    @classmethod
    def load(
        cls,
        folder: Path,
        rubric: Rubric,
        preparer: FullSizePreparer | SmartResizePreparer,
        dtype: str,
        config: AssessorConfig,
    ) -> TransformersAssessor:
        """Loads a complete checkpoint folder: safetensors only, no code from the checkpoint, nothing fetched.

        dtype: float32 or bfloat16. Raises CallerError when the checkpoint cannot be loaded whole.
        """
        processor = load_processor(folder)
        model = load_model(folder, dtype, config.device, config.threads)
        return cls(model, processor, rubric, preparer, config.batch_tokens)

    @property
    def versions(self) -> Mapping[str, str]:
        device = self._model.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}

    def assess(self, images: Sequence[NDArray[np.uint8]]) -> list[Assessment | Rejection]:
        """One result per prepared image, in order; images of like size are batched up to `batch_tokens`."""
        results: dict[int, Assessment | Rejection] = {}
        for group in self._groups(images):
            results.update(zip(group, self._assess_batch([images[i] for i in group]), strict=True))
        return [results[i] for i in range(len(images))]

    def _groups(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        group: list[int] = []
        tokens_of_group = 0
        for i in sorted(range(len(images)), key=lambda i: images[i].shape):
            tokens = self.preparer.tokens(*images[i].shape[:2])
            if group and tokens_of_group + tokens > self._batch_tokens:
                yield group
                group, tokens_of_group = [], 0
            group.append(i)
            tokens_of_group += tokens
        if group:
            yield group

    def _assess_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Assessment | Rejection]:
        try:
            return [assessment_of(logits_KL) for logits_KL in self.level_logits(images)]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                return [TOO_LARGE]
        # outside of the handler, whose traceback would keep the failed batch's tensors alive
        half = len(images) // 2
        return self._assess_batch(images[:half]) + self._assess_batch(images[half:])

    @torch.inference_mode()
    def level_logits(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logits of the level words, worst to best, shape (N, K, L), of one batch of prepared images."""
        pictures = [Image.fromarray(pixels) for pixels in images]
        rows = torch.arange(len(images))
        logits_KNL = []
        for prompt, columns_L in zip(self._prompts_K, self._columns_KL, strict=True):
            inputs = self._inputs(prompt, pictures)
            last_N = inputs["attention_mask"].sum(dim=1) - 1  # padding is on the right
            logits_NTV = self._model(**inputs.to(self._model.device, self._model.dtype), use_cache=False).logits
            logits_KNL.append(logits_NTV.cpu()[rows, last_N][:, columns_L])
        return np.asarray(torch.stack(logits_KNL, dim=1).numpy())

    def _inputs(self, prompt: str, pictures: Sequence[Image.Image]) -> Any:
        """What the model takes: the checkpoint's own processor on one prompt for all pictures."""
        return self._processor(
            text=[prompt] * len(pictures),
            images=[[picture] for picture in pictures],
            text_kwargs={"padding": True, "add_special_tokens": adds_special_tokens(self._processor.tokenizer, prompt)},
            images_kwargs={} if self.preparer.processor_resizes else {"do_resize": False},
            return_tensors="pt",
        )


def _rows(matrix: Any, ids_V: Sequence[int]) -> torch.Tensor:
    return matrix.detach()[list(ids_V)].float().clone()
