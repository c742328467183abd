"""A model and several devices -> its decoder's layers on them in order, everything else on the first.

This is naive model parallelism: the devices work one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iqa_core.errors import CallerError


def spread(model: Any, devices: Sequence[torch.device]) -> Any:
    """The model with its decoder's layers in order over the devices; vision, embeddings and head on the first.

    Each device gets about the same share of the model's bytes, and each layer's arguments are moved to its device. This
    gives memory, not speed.
    Raises CallerError when the decoder has no list of layers, or fewer layers than there are devices.
    """
    home, *others = devices
    if not others:
        return model.to(home)
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", ())
    if len(layers) < len(devices):
        raise CallerError(
            f"--assessor.num-gpus {len(devices)}: the decoder of this checkpoint has {len(layers)} layers to spread"
        )
    places = layer_places([_size(layer) for layer in layers], _size(model), len(devices))
    for layer, place in zip(layers, places, strict=True):
        layer.to(devices[place])
    decoder.layers = torch.nn.ModuleList()  # out of the way, so that the first device does not receive them
    model.to(home)
    decoder.layers = layers
    bring_along(decoder)
    return model


def bring_along(decoder: Any) -> None:
    """Add hooks to a decoder that move the arguments of each layer, and of the last norm, to that module's device."""
    for module in (*decoder.layers, decoder.norm):
        module.register_forward_pre_hook(_brought, with_kwargs=True)


def layer_places(sizes: Sequence[int], model_size: int, num_devices: int) -> list[int]:
    """Index of each layer's device, ascending: the model in bytes is cut into equal parts, and a layer's middle counts.

    sizes: bytes of each layer. model_size: bytes of the whole model; all but the layers lies before them.
    """
    places = []
    before = model_size - sum(sizes)
    for size in sizes:
        places.append(int((before + size / 2) * num_devices / model_size))
        before += size
    return places


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _brought(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """A module's arguments on its device: tensors, and tuples of them. A KV cache stays: each layer's part is there."""
    device = next(module.parameters()).device
    return _moved(given, device), {name: _moved(value, device) for name, value in named.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return tuple(_moved(one, device) for one in value) if isinstance(value, tuple) else value
