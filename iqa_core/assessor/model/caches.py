"""Caches of several forwards -> one cache; one cache -> another with its rows by index.

A cache of transformers has a layer object per layer of the model: keys and values, whole or of a window, and states of
convolutions and of linear attention. All of them have their rows in the first axis.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def tensors_of(layer: Any) -> Iterator[torch.Tensor]:
    """Keys, values and states of a layer."""
    yield from _tensors(vars(layer))
    yield from states_of(layer)


def states_of(layer: Any) -> Iterator[torch.Tensor]:
    """States of convolutions and of linear attention, which do not grow with a prompt."""
    for value in vars(layer).values():
        if isinstance(value, dict):
            yield from _tensors(value)


def _tensors(values: Mapping[Any, Any]) -> Iterator[torch.Tensor]:
    return (value for value in values.values() if isinstance(value, torch.Tensor))


def layer_with_rows(layer: Any, rows: torch.Tensor) -> Any:
    """A layer whose rows are those of another by index; the other stays as it is.

    `reorder_cache` works on every kind of layer, and leaves new tensors in it. So the layer is copied first, and the
    dictionaries in which those of linear attention keep their states.
    """
    made = copy.copy(layer)
    vars(made).update({name: dict(value) for name, value in vars(made).items() if isinstance(value, dict)})
    made.reorder_cache(rows)
    return made


def with_rows(cache: Any, rows: torch.Tensor) -> Any:
    """A cache whose rows are those of another by index; the other stays as it is."""
    made = copy.copy(cache)
    made.layers = [layer_with_rows(layer, rows) for layer in cache.layers]
    return made


def free_beyond_windows(cache: Any) -> None:
    """Let go of tokens that windows have passed: transformers keeps views, each of which holds its whole prompt."""
    for layer in cache.layers:
        if getattr(layer, "sliding_window", None) and layer.keys is not None:
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()


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
