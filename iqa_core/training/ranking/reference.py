"""A model in training -> the model that it began as, whose distribution it is held near."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from iqa_core.training.parts import ADAPTER, trainable

if TYPE_CHECKING:
    import torch


class Reference:
    """The base: the model itself without its low-rank updates where it has nothing else to learn, else a second one."""

    def __init__(self, policy: torch.nn.Module, load: Callable[[], torch.nn.Module]) -> None:
        """load: gives the base's model on the policy's device, if that is needed."""
        self._policy = policy
        self._own = None if all(ADAPTER in name for name in trainable(policy)) else load().eval().requires_grad_(False)

    @contextmanager
    def model(self) -> Iterator[Any]:
        """The base's model, in evaluation mode if the policy is."""
        if self._own is not None:
            yield self._own
            return
        layers = list(_adapted(self._policy))
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield self._policy
        finally:
            for layer in layers:
                layer.enable_adapters(True)


def _adapted(model: torch.nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))
