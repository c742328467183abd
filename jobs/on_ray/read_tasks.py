"""Items -> tables, by one task of the cluster for each: how a stream of Ray Data begins.

`ray.data.from_arrow` would first ask a task of the cluster for the size of every item, and start processes for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")


def read_each(
    items: Sequence[T], read: Callable[[T], Iterable[pa.Table]], *, num_cpus: float, at_once: int, retries: int
) -> Dataset:
    """Each table that `read` yields is a block. Items, and `read` once, travel through the object store.

    retries: worker crashes tolerated per item; one more, and the item is given up if the data context allows errors.
    """
    import ray
    import ray.data
    from ray.data import Datasource, TaskPoolStrategy
    from ray.data.block import BlockMetadata
    from ray.data.datasource import ReadTask

    # Ray 2.60 has no other way to say how often a task is retried
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    # an item can take 1 MiB; the callers bound how many there are at once
    warnings.filterwarnings("ignore", message="The serialized size of your read function")
    reader = ray.put(read)
    unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)

    class Items(Datasource):
        def get_name(self) -> str:
            return type(read).__name__

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            return [ReadTask(_Reading(reader, item), unknown) for item in items]

    return ray.data.read_datasource(
        Items(),  # type: ignore[no-untyped-call]
        num_cpus=num_cpus,
        compute=TaskPoolStrategy(size=at_once),
        override_num_blocks=len(items),
        ray_remote_args={"max_retries": retries},
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """In a process of the cluster: one item, read."""

    reader: Any
    item: Any

    def __call__(self) -> Iterable[pa.Table]:
        import ray

        return ray.get(self.reader)(self.item)

    @property
    def __name__(self) -> str:
        return "reading"  # Ray asks functions for it
