"""A prefill and how tokens are chosen -> what the model writes behind each prompt, all samples of all images at once.

Rows that end leave the batch. Shape suffixes: N images, R rows (one per sample), V tokens of the vocabulary, W tokens
that are watched, T tokens that were written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.model.generation.prefill import Prefill
from iqa_core.assessor.model.generation.sampling import NextTokens
from iqa_core.assessor.model.generation.shared_attention import RowsCache, sharing
from iqa_core.records import Finish
from iqa_core.rubrics.written import Decoding

LEAVING = 0.2
"""Share of rows that have ended at which they leave: the others' caches are copied then."""

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer's decoder puts for a part of a letter."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written behind one prompt."""

    ids: tuple[int, ...]
    """Tokens, without the one that ended the turn."""
    text: str
    finish: Finish
    watched_TW: NDArray[np.float32]
    """Log-probabilities of the watched tokens at the place of each token; before penalties and temperature."""
    is_finite: bool = True
    """Whether all logits were numbers; the answer ends before a token for which they were not."""
    end: int | None = None
    """The token that ended the turn; None where a text did, or the limit."""
    log_probs: tuple[float, ...] = ()
    """Log-probability of each token, that which ended the turn included, before penalties and temperature; empty where
    the decoder does not measure them."""


@dataclass
class _Row:
    """One answer in the making."""

    number: int
    key: int
    prompt: tuple[int, ...]
    limit: int
    """Tokens at which it is cut."""
    ids: list[int] = field(default_factory=list)
    watched: list[NDArray[np.float32]] = field(default_factory=list)
    finish: Finish | None = None
    """Why it ended by itself."""
    is_finite: bool = True
    end: int | None = None
    log_probs: list[float] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return self.finish is None and len(self.ids) < self.limit


class Decoder:
    """Writes the answers of a model with its whole output matrix."""

    def __init__(
        self,
        model: Any,
        decoding: Decoding,
        decode: Callable[[Sequence[int]], str],
        *,
        ends: Collection[int] = (),
        suppressed: Sequence[int] = (),
        watched: Sequence[int] = (),
        shares: bool = True,
        measures: bool = False,
    ) -> None:
        """A decoder by a rubric's settings.

        decode: token ids -> their text, verbatim; ends: ids that end a turn, and are no part of the answer;
        suppressed: ids that are never written; watched and measures: see `Answer`; shares: see `RowsCache`.
        """
        self._model = model
        self._decoding = decoding
        self._ends = frozenset(ends)
        self._decode = decode
        self._watched = torch.tensor(list(watched), dtype=torch.int64, device=model.device)
        self._choose = NextTokens(decoding, suppressed, model.get_output_embeddings().weight.shape[0], model.device)
        self._last_letters = {text[-1] for text in decoding.stop}
        self._tail = 1 + max((len(text.encode()) for text in decoding.stop), default=0)
        self._may_end: dict[int, bool] = {}
        self._shares = shares
        self._measures = measures

    @torch.inference_mode()
    def __call__(
        self, prefill: Prefill, keys_NS: Sequence[Sequence[int]], limits_N: Sequence[int] | None = None
    ) -> list[list[Answer]]:
        """Answers of each image, in the order of the keys of its samples (see `iqa_core.written.keys`).

        limits_N: tokens at which the answers of each image are cut; None is the rubric's.
        """
        limits_N = limits_N or [self._decoding.max_new_tokens] * len(keys_NS)
        images = [i for i, keys in enumerate(keys_NS) for _ in keys]
        keys = [key for keys in keys_NS for key in keys]
        rows = [
            _Row(r, key, prefill.prompts[i], limits_N[i]) for r, (i, key) in enumerate(zip(images, keys, strict=True))
        ]
        with sharing(self._model) if self._shares else nullcontext():
            self._write(prefill, rows, torch.tensor(images, device=self._model.device))
        answers = iter([self._answer(row) for row in rows])
        return [[next(answers) for _ in keys] for keys in keys_NS]

    def _write(self, prefill: Prefill, rows: Sequence[_Row], images_R: torch.Tensor) -> None:
        limit = max(row.limit for row in rows)
        cache = RowsCache(prefill.cache, images_R, limit, shares=self._shares)
        mask, positions, logits = (
            values[images_R] for values in (prefill.mask_NT, prefill.positions_N, prefill.logits_NV)
        )
        self._choose.begin([row.prompt for row in rows])
        for step in range(limit):
            ids_R = self._choose(logits, [row.key for row in rows], step)
            self._note(rows, ids_R, logits)
            alive = [r for r, row in enumerate(rows) if row.goes_on]
            if not alive:
                break
            if len(alive) <= (1 - LEAVING) * len(rows):
                kept = torch.tensor(alive, device=ids_R.device)
                rows, ids_R, mask, positions = [rows[r] for r in alive], ids_R[kept], mask[kept], positions[kept]
                self._choose.keep(kept)
                cache.keep(kept)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._next(prefill, cache.cache, ids_R, mask, positions)
            positions = positions + 1

    def _next(
        self, prefill: Prefill, cache: Any, ids_R: torch.Tensor, mask: torch.Tensor, positions_R: torch.Tensor
    ) -> torch.Tensor:
        """Logits (R, V) behind one more token of each row, which the cache then holds."""
        ids = ids_R[:, None]
        positions = positions_R[:, None]
        if prefill.num_axes is not None:
            positions = positions.expand(prefill.num_axes, -1, -1)
        types = {name: torch.zeros_like(ids) for name in prefill.types}
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **types,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _note(self, rows: Sequence[_Row], ids_R: torch.Tensor, logits_RV: torch.Tensor) -> None:
        """Write a token into each row that goes on, and see which rows end with it."""
        watched_RW = None
        are_finite_R = logits_RV.amax(-1).isfinite()  # NaN counts as the largest
        if len(self._watched):
            logits_RV = logits_RV.float()
            whole_R1 = logits_RV.logsumexp(-1, keepdim=True)
            watched_RW = (logits_RV[:, self._watched] - whole_R1).cpu().numpy()
        log_probs = _log_probs(logits_RV, ids_R).tolist() if self._measures else None
        tokens = torch.stack([ids_R, are_finite_R.long()], dim=1).tolist()  # one wait for a GPU
        for r, (row, (token, is_finite)) in enumerate(zip(rows, tokens, strict=True)):
            if not row.goes_on:
                continue
            row.is_finite = bool(is_finite)
            if is_finite and log_probs is not None:
                row.log_probs.append(log_probs[r])
            if token in self._ends or not is_finite:
                row.finish = Finish.STOP
                row.end = token if is_finite else None
                continue
            row.ids.append(token)
            if watched_RW is not None:
                row.watched.append(watched_RW[r])
            if self._ends_with_text(row.ids):
                row.finish = Finish.STOP

    def _ends_with_text(self, ids: Sequence[int]) -> bool:
        """Whether an ending text became whole by the last token."""
        last = ids[-1]
        if last not in self._may_end:
            letters = self._decode([last])
            self._may_end[last] = UNFINISHED in letters or any(letter in self._last_letters for letter in letters)
        if not self._may_end[last]:
            return False
        text = self._decode(ids[-self._tail :])
        return any(ending in text for ending in self._decoding.stop)

    def _answer(self, row: _Row) -> Answer:
        text = self._decode(row.ids)
        ends = [at + len(ending) for ending in self._decoding.stop if (at := text.find(ending)) >= 0]
        watched = np.stack(row.watched) if row.watched else np.zeros((0, len(self._watched)))
        return Answer(
            tuple(row.ids),
            text[: min(ends, default=len(text))],
            row.finish or Finish.LENGTH,
            watched.astype(np.float32),
            row.is_finite,
            row.end,
            tuple(row.log_probs),
        )


def _log_probs(logits_RV: torch.Tensor, ids_R: torch.Tensor) -> torch.Tensor:
    """Log-probability (R,) of one token of each row."""
    logits_RV = logits_RV.float()
    return logits_RV.gather(1, ids_R[:, None])[:, 0] - logits_RV.logsumexp(-1)
