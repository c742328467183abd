"""A local folder of a language model -> how near two texts are in meaning, by the embeddings of their tokens.

BERTScore (Zhang et al., arXiv 1904.09675): each token is matched with the nearest token of the other text by the cosine
of their last-layer embeddings; precision is the mean over the text's tokens, recall over the reference's. Tokens are
weighed alike, and nothing is rescaled to a baseline, so figures of two folders cannot be compared. Beside it the cosine
of the texts' mean embeddings. Shape suffixes: T tokens of one text, U of the other, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iqa_core.errors import CallerError

LAYER = "last"
"""The layer whose embeddings are compared; said beside the figures."""


class Meaning(NamedTuple):
    """How near a text is to a reference, -1 to 1; 0 where either has no token."""

    cosine: float
    precision: float
    recall: float
    f1: float


class TextsModel:
    """Embeds texts, each once and by itself: what stands beside it changes nothing."""

    def __init__(self, folder: Path) -> None:
        """Load from the folder alone: safetensors, no code from it, nothing fetched. Raises CallerError."""
        if not (folder / "config.json").is_file():
            raise CallerError(
                f"--texts-model {folder} is no folder of a transformers model: it has no config.json; download an "
                "encoder of sentences, and give the folder"
            )
        from transformers import AutoModel, AutoTokenizer

        own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **own)
            model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype="float32", **own)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CallerError(f"--texts-model {folder} cannot be loaded: {error}") from error
        self._model = (model.get_encoder() if model.config.is_encoder_decoder else model).eval()
        places = getattr(model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self.max_tokens = int(min(places, self._tokenizer.model_max_length))
        """Tokens of a text that are looked at."""
        self.folder = folder
        self._known: dict[str, NDArray[np.float32]] = {}
        self._cut: set[str] = set()

    @property
    def cut(self) -> int:
        """Texts so far that were longer than `max_tokens`."""
        return len(self._cut)

    def __call__(self, text: str, reference: str) -> Meaning:
        """How near they are."""
        return compared(self.embedded(text), self.embedded(reference))

    def embedded(self, text: str) -> NDArray[np.float32]:
        """Embeddings of the text's tokens, without those that the tokenizer puts around it, shape (T, D)."""
        if text not in self._known:
            self._known[text] = self._embed(text)
        return self._known[text]

    def _embed(self, text: str) -> NDArray[np.float32]:
        import torch

        given = self._tokenizer(text, return_tensors="pt", return_special_tokens_mask=True, verbose=False)
        is_own = ~given.pop("special_tokens_mask")[0].bool()
        if is_own.shape[0] > self.max_tokens:
            self._cut.add(text)
        if not is_own.shape[0]:
            return np.zeros((0, 1), np.float32)
        given = {name: value[:, : self.max_tokens] for name, value in given.items()}
        with torch.inference_mode():
            hidden_TD = self._model(**given).last_hidden_state[0]
        return np.asarray(hidden_TD[is_own[: self.max_tokens]].float().numpy())


def compared(text_TD: NDArray[np.float32], reference_UD: NDArray[np.float32]) -> Meaning:
    """BERTScore by greedy matching, and the cosine of the means."""
    if not len(text_TD) or not len(reference_UD):
        return Meaning(0.0, 0.0, 0.0, 0.0)
    cosines_TU = _unit(text_TD) @ _unit(reference_UD).T
    precision, recall = float(cosines_TU.max(axis=1).mean()), float(cosines_TU.max(axis=0).mean())
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    cosine = float(_unit(text_TD.mean(axis=0)) @ _unit(reference_UD.mean(axis=0)))
    return Meaning(cosine, precision, recall, f1)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of length 1 along the last axis; 0 stays 0."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
