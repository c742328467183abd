"""A device that no machine has: its tensors compute on the CPU, but meet no tensor that lies there.

What a GPU does not forgive shows so where there is none: operands left behind on the CPU, and values asked for while it
works (each of which waits for all that it was given before). Its tensors call themselves `meta`, for which torch wants
no driver; made they must be while `OtherDevice` is active.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from iqa_core.assessor.fast import packing, segment_attention
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from tests.assessor.varlen_kernels import attend_each

DEVICE = torch.device("meta")
MAY_MIX = ("aten::index", "aten::_index")
"""Of these an index may lie on the CPU."""

new_tensor = torch.tensor


class There(torch.Tensor):
    """A tensor on the other device."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> There:
        tensor: There = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )
        tensor.here = here
        return tensor

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(There(new_tensor(index)) if isinstance(index, list) else index)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise AssertionError("a tensor of the other device is used outside of it")


class OtherDevice(TorchDispatchMode):
    """Runs everything, and counts what was run over there, and what had to be waited for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, given = func.name(), dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, There)]
        is_there = bool(there)
        if given.get("device") is not None:
            is_there = torch.device(given["device"]) == DEVICE
            given["device"] = torch.device("cpu")
        elif there and not name.startswith((*MAY_MIX, "aten::copy_", "aten::_to_copy")):
            strays = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, There) and tensor.ndim]
            assert not strays, f"{name} is given tensors of the CPU, of shapes {strays}"
        self.calls[name] += bool(there)
        if there and (not is_there or name in ("aten::_local_scalar_dense", "aten::nonzero")):
            self.waits[name] += 1
        args, given = tree_map(here, (args, given))
        if name == "aten::histc":  # counts the tokens of each expert, which only a GPU can in whole numbers
            args = (args[0].float(), *args[1:])
        out = _varlen(*args) if name == "torch_attn::_varlen_attn" else func(*args, **given)
        return tree_map(lambda leaf: There(leaf) if is_there and isinstance(leaf, torch.Tensor) else leaf, out)


def here(leaf: Any) -> Any:
    """What a tensor of the other device computes on."""
    return leaf.here if isinstance(leaf, There) else leaf


def _varlen(*args: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """torch's operation behind `varlen_attn`; it is told of causality twice, and of what the kernel here ignores."""
    *heads_and_ends, _is_causal, scale, window_size = args[:10]
    attended = attend_each(*heads_and_ends, scale=scale, window_size=tuple(window_size))
    return attended, torch.empty(0), torch.empty(0)


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The same model over there."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(There(parameter.detach()), requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, There(buffer))
    return model


@contextmanager
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherDevice]:
    """While it lasts, it has the kernel of a GPU for attention in one call."""

    def tensor(data: Any, *, device: Any = None, **settings: Any) -> torch.Tensor:
        made = new_tensor(tree_map(here, data), **settings)
        return There(made) if device is not None and torch.device(device) == DEVICE else made

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(
        torch.Tensor, "new_tensor", lambda self, data, **settings: tensor(data, **{"device": self.device, **settings})
    )
    for strategy in (
        SeparatePrompts,
        PrefixCaching,
        PackedSequences,
    ):  # inference mode gives no views of tensors like these
        monkeypatch.setattr(strategy, "logits", inspect.unwrap(strategy.logits))
    for module in (packing, segment_attention):
        monkeypatch.setattr(module, "takes_varlen", lambda heads: heads.dtype == torch.bfloat16)
    with torch.no_grad(), OtherDevice() as device:
        yield device
