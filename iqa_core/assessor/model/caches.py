"""A model's caches of several prefills -> one cache, a row for each sample, that grows without being copied.

A cache of transformers has a layer object per layer of the model: keys and values, whole or of a window, and states of
convolutions and of linear attention. All of them have their rows in the first axis.

Shape suffixes: R rows, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values of full attention in a buffer that is longer than they are, so that a token is one row's write.

    `DynamicLayer` copies all of them for each token: 77 tokens behind 330 would copy the first 330 77 times.
    """

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        """layer: with the prompt's keys and values; room: tokens that will come."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._hold(layer.keys, layer.values, room)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (R, H, T, D) with the new ones behind them."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self.keys, self.values = self._key_buffer[:, :, :end], self._value_buffer[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        room = self._key_buffer.shape[-2] - self.keys.shape[-2]
        self._hold(self.keys[beam_idx], self.values[beam_idx], room)

    def _hold(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        shape = (*keys.shape[:-2], keys.shape[-2] + room, keys.shape[-1])
        self._key_buffer, self._value_buffer = keys.new_empty(shape), values.new_empty((*shape[:-1], values.shape[-1]))
        self.keys, self.values = self._key_buffer[:, :, :0], self._value_buffer[:, :, :0]
        self.update(keys, values)


def repeated(cache: Any, rows: torch.Tensor) -> Any:
    """A cache whose rows are those of another by index; the other stays as it is.

    `reorder_cache` works on every kind of layer, and leaves new tensors in it. So the layers are copied first, and the
    dictionaries in which those of linear attention keep their states.
    """
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in made.layers:
        vars(layer).update({name: dict(value) for name, value in vars(layer).items() if isinstance(value, dict)})
    made.reorder_cache(rows)
    return made


def joined(caches: Sequence[Any]) -> Any:
    """One cache with the rows of several whose prompts are of one width; the first is used up."""
    whole = caches[0]
    for layer, *others in zip(*(cache.layers for cache in caches), strict=True):
        for name, value in vars(layer).items():
            setattr(layer, name, _joined([value, *(vars(other)[name] for other in others)]))
    return whole


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _joined([value[key] for value in values]) for key in first}
    return torch.cat(list(values)) if isinstance(first, torch.Tensor) and first.ndim > 1 else first


def growing(cache: Any, rows: torch.Tensor, room: int) -> Any:
    """A cache whose rows are those of another by index, with room for so many tokens more; the other stays as it is."""
    made = repeated(cache, rows)
    for i, layer in enumerate(made.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            made.layers[i] = GrowingLayer(layer, room)
    return made
