"""Images that did not come back -> the same, one by one, in processes of their own: poison is found, the rest assessed.

One plain actor reads and prepares, another assesses. An image that ends its process twice, on nodes that are alive, is
rejected: `corrupt` when it was the decoder, `assessor_failed` when it was the assessor. So is one that takes too long,
since a process ends itself at its time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from iqa_core.assessor.batching import GRACE_S, time_limit_s
from iqa_core.corpus.batches import BatchBounds, ReadyBatch, ready_batches, rejected_batch
from iqa_core.corpus.chunks import Chunk, Content, Origin
from iqa_core.corpus.reading import open_chunk
from iqa_core.corpus.sources import Kind
from iqa_core.deadline import deadline
from iqa_core.errors import RunError
from iqa_core.records import Reason, Rejection
from iqa_core.tables.sink import AssessedBatch, Sink
from jobs.assessing.stream import Event
from jobs.assessing.work import AssessBatches, Work, assessed_batch
from jobs.on_ray.cluster import Pool
from jobs.on_ray.transport import ChunkFailure, failure_of

DEATHS_PER_IMAGE = 2
"""One death may be another's fault (a neighbour that takes all memory); two in fresh processes are the image's."""

LOST_NODES = 20
"""Nodes lost while one image was tried, before the run gives up: the cluster is at fault."""

FAILED_IN_A_ROW = 16
"""Images in a row that end fresh processes before the assessor is suspected, and no longer the images."""


class SingleReader:
    """Actor that prepares single images of one chunk, in a process of its own."""

    def __init__(self, given: Callable[[], Work]) -> None:
        self._work = given()
        self._chunk = ""
        self._content: Content | None = None

    def node(self) -> str:
        """Id of the node that the process runs on."""
        return _own_node()

    def open(self, encoded: bytes) -> Origin | ChunkFailure:
        """The chunk as this process found it, or why it cannot be read."""
        content = self._opened(encoded)
        return content if isinstance(content, ChunkFailure) else content.origin(self._chunk)

    def read(self, encoded: bytes, ordinal: int) -> ReadyBatch | ChunkFailure:
        """The image with this ordinal as a batch of one, or why its chunk cannot be read."""
        content = self._opened(encoded)
        if isinstance(content, ChunkFailure):
            return content
        work = self._work
        bounds = BatchBounds(tokens=1, images=1)
        limit_s = work.decode_timeout_s
        only = frozenset([ordinal])
        return next(ready_batches(self._chunk, content, work.spec.preparer, bounds, lambda: deadline(limit_s), only))

    def reject(self, encoded: bytes, ordinal: int, rejection: Rejection) -> ReadyBatch | ChunkFailure:
        """The same image as a batch of one that is rejected without decoding it again."""
        content = self._opened(encoded)
        if isinstance(content, ChunkFailure):
            return content
        return rejected_batch(self._chunk, content, ordinal, next(content.images([ordinal])), rejection)

    def _opened(self, encoded: bytes) -> Content | ChunkFailure:
        """The chunk's content, read once."""
        chunk = Chunk.from_bytes(encoded)
        if self._content is None or chunk.name != self._chunk:
            try:
                self._content = _held(chunk.kind, open_chunk(chunk, self._work.read_plan))
            except Exception as error:  # whatever a source makes its reader raise is the source's failure
                return failure_of(chunk.name, error)
            self._chunk = chunk.name
        return self._content


def _held(kind: Kind, content: Content) -> Content:
    """Content whose images are all in memory: a row group is decoded once, not once per image.

    Loose and listed images stay where they are, since each is fetched by itself anyway.
    """
    if kind in (Kind.IMAGE, Kind.LIST):
        return content
    images = list(content.images(range(len(content.keys))))
    return replace(content, images=lambda ordinals: iter([images[ordinal] for ordinal in ordinals]))


class SingleAssessor(AssessBatches):
    """Actor that assesses batches of one, in a process of its own."""

    def node(self) -> str:
        """Id of the node that the process runs on."""
        return _own_node()


class Isolation:
    """The two actors, each started when it is first needed."""

    def __init__(self, work: Work, pool: Pool) -> None:
        self._work = work
        self._failed_in_a_row = 0
        self._reader = _Process(SingleReader, work, {"num_cpus": pool.reader_cpus}, None)
        resources = {"num_cpus": pool.actor_cpus, "num_gpus": pool.actor_gpus}
        limit_s = time_limit_s(work.config, work.spec.rubric, num_images=1, passes=work.asking.passes)
        self._assessor = _Process(SingleAssessor, work, resources, limit_s + GRACE_S)

    def replay(self, encoded: bytes, sink: Sink) -> Iterator[Event]:
        """Images of a chunk that the sink does not have, one batch each, or why the chunk cannot be read.

        Raises RunError where the assessor or the cluster is at fault, and not the images.
        """
        chunk = Chunk.from_bytes(encoded).name
        origin: Origin | ChunkFailure | None = self._reader.call("open", encoded)
        if origin is None:
            yield ChunkFailure(chunk, "reading it ends its process each time", is_fatal=False)
            return
        if isinstance(origin, ChunkFailure):
            yield origin
            return
        partial = sink.partial(chunk, origin.layout)
        for ordinal in sorted(partial.missing if partial else range(origin.images)):
            event = self._score(encoded, ordinal)
            yield event
            if isinstance(event, ChunkFailure):
                return
        if origin.images == 0 and partial is None:
            yield ChunkFailure(chunk, "its readers ended before they said that it is empty", is_fatal=False)

    def close(self) -> None:
        """End both processes; they start again when they are needed."""
        self._reader.end()
        self._assessor.end()

    def _score(self, encoded: bytes, ordinal: int) -> Event:
        batch = self._reader.call("read", encoded, ordinal)
        if batch is None:
            rejection = Rejection(Reason.CORRUPT, f"decoding it crashed or exceeded its time, {DEATHS_PER_IMAGE} times")
            batch = self._reader.call("reject", encoded, ordinal, rejection)
        if batch is None:
            return ChunkFailure(Chunk.from_bytes(encoded).name, "reading it ends its process", is_fatal=False)
        if isinstance(batch, ChunkFailure):
            return batch
        assert isinstance(batch, ReadyBatch)
        if batch.images:
            assessed = self._assessor.call("assess", batch)
            if assessed is not None:
                assert isinstance(assessed, AssessedBatch)
                self._failed_in_a_row = 0
                return assessed
            self._failed_in_a_row += 1
            if self._failed_in_a_row == FAILED_IN_A_ROW:
                raise RunError(
                    f"{FAILED_IN_A_ROW} images in a row ended the assessor's process: the device, the driver or the "
                    "model is at fault; put it right and run the same command"
                )
            rejection = Rejection(
                Reason.ASSESSOR_FAILED, f"assessing it crashed or exceeded its time, {DEATHS_PER_IMAGE} times"
            )
            batch = replace(batch, rejections=(rejection,), images=(), texts=None)
        return assessed_batch(batch, [], self._work, versions="{}")


class _Process:
    """A plain actor that may die: started anew after each death, which counts unless its node died."""

    def __init__(self, kind: type, work: Work, resources: dict[str, Any], timeout_s: float | None) -> None:
        self._kind = kind
        self._work = work
        self._resources = resources
        self._timeout_s = timeout_s
        self._actor: Any = None
        self._node = ""

    def call(self, method: str, *arguments: Any) -> Any:
        """The method's value, or None if it ended the process DEATHS_PER_IMAGE times on living nodes."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        deaths = lost = 0
        while deaths < DEATHS_PER_IMAGE:
            try:
                self._start()
                return ray.get(getattr(self._actor, method).remote(*arguments), timeout=self._timeout_s)
            except (RayActorError, GetTimeoutError):
                if self._node and not _is_alive(self._node):
                    lost += 1
                else:
                    deaths += 1
                self.end()
                if lost > LOST_NODES:
                    raise RunError(f"{lost} nodes were lost under one image; the same command goes on") from None
        return None

    def end(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
        self._actor, self._node = None, ""

    def _start(self) -> None:
        import ray
        from ray.exceptions import RayActorError

        if self._actor is not None:
            return
        self._actor = ray.remote(self._kind).options(max_restarts=0, **self._resources).remote(lambda: self._work)
        try:
            self._node = ray.get(self._actor.node.remote())
        except RayActorError as error:
            self.end()
            raise RunError(f"a {self._kind.__name__} cannot be started: {error}") from error


def _own_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _is_alive(node: str) -> bool:
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())
