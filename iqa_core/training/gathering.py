"""What each worker makes by itself -> what all of them made, or the first one's error on every worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from iqa_core.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a worker made nothing."""

    message: str


def gathered(make: Callable[[], T]) -> list[T]:
    """What `make` gives on each worker, by rank; all workers must call it equally often.

    It is one collective, which a worker reaches once whatever its own `make` does: one that raised first would leave
    the others waiting for it. Raises RunError on all of them, with the first worker's message.
    """
    import torch.distributed as dist

    own: T | _Failure
    error: Exception | None = None
    try:
        own = make()
    except Exception as caught:  # raised again below, on every worker
        error = caught
        own = _Failure(f"{type(caught).__name__}: {caught}" if not isinstance(caught, RunError) else str(caught))
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    for rank, one in enumerate(found):
        if isinstance(one, _Failure):
            raise RunError(f"worker {rank}: {one.message}") from error
    return found
