"""A model and several devices -> its decoder's layers in runs over them, everything else on the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iqa_core.errors import CallerError


def spread(model: Any, devices: Sequence[torch.device]) -> Any:
    """The model, moved: its decoder's layers in order over the devices; vision, embeddings and head on the first.

    Each device gets about the same share of the whole model's bytes, and a layer finds what it is given on its own
    device. The devices work one after another: this makes room, not speed.
    Raises CallerError when the decoder has no row of layers, or fewer than there are devices.
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
    decoder.layers = torch.nn.ModuleList()  # the rest is moved without them: the first device need not hold all
    model.to(home)
    decoder.layers = layers
    bring_along(decoder)
    return model


def bring_along(decoder: Any) -> None:
    """From now on each layer of a decoder, and the norm behind them, finds its arguments on its own device."""
    for module in (*decoder.layers, decoder.norm):
        module.register_forward_pre_hook(_brought, with_kwargs=True)


def layer_places(sizes: Sequence[int], model_size: int, num_devices: int) -> list[int]:
    """Device of each layer, rising: where its middle lies when the model is cut into equal parts, layers last.

    sizes: bytes of each layer. model_size: bytes of the whole model.
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
    """A module's arguments on its device: tensors and tuples of them; a cache keeps each layer's where it is."""
    device = next(module.parameters()).device
    return _moved(given, device), {name: _moved(value, device) for name, value in named.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return tuple(_moved(one, device) for one in value) if isinstance(value, tuple) else value
