"""A chunk's images -> ready batches: what an assessor takes in one go, fixed from headers before anything is decoded.

Fixed means: the same bytes give the same list of batches every time, since an engine that runs a dead reader again
matches its outputs by position. A rejected image keeps its slot; every batch says which ordinals of how many it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.corpus.chunks import LOCATION, Content, Encoded, Origin
from iqa_core.corpus.columns import storable
from iqa_core.images.preparing import Probe, prepare, probe
from iqa_core.records import PreparedShape, Preparer, Rejection

WINDOW_IMAGES = 256
"""Images sorted by size together: enough to fill batches evenly, few enough that the first batch is soon ready."""

WINDOW_BYTES = 256 * 2**20
"""Encoded bytes held for that at most (one image more, if it is larger)."""

BATCH_PIXEL_BYTES = 256 * 2**20
"""Pixels of one batch at most: far below the 2 GiB that one Arrow value can hold."""


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """What one call of the assessor takes."""

    tokens: int
    """Sum of the token costs of prepared images and their texts; a single image may exceed it."""
    images: int = 256


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """Images of one chunk, prepared; `images` has one array (H, W, 3) uint8 per rejection that is None, in order."""

    origin: Origin
    ordinals: tuple[int, ...]
    facts: pa.Table
    """LOCATION and carried columns, one row per ordinal."""
    rejections: tuple[Rejection | None, ...]
    images: tuple[NDArray[np.uint8], ...]
    texts: tuple[Mapping[str, str], ...] | None = None
    """For each of `images`, slot of the rubric -> text; None where the rubric has no slots."""


@dataclass(frozen=True, slots=True)
class _Slot:
    ordinal: int
    encoded: Encoded
    found: Probe | Rejection
    prepare: Callable[[], NDArray[np.uint8] | Rejection]
    texts: Mapping[str, str] = field(default_factory=dict)
    text_tokens: int = 0

    @property
    def shape(self) -> PreparedShape | None:
        return None if isinstance(self.found, Rejection) else self.found.shape


def ready_batches(
    chunk: str,
    content: Content,
    preparer: Preparer,
    bounds: BatchBounds,
    guard: Callable[[], AbstractContextManager[object]],
    only: frozenset[int] | None = None,
) -> Iterator[ReadyBatch]:
    """All images of a chunk, or those with the ordinals in `only`, like sizes together.

    guard: entered around whatever is done to the bytes of one image, to bound the time it takes.
    """
    origin = content.origin(chunk)
    if not content.keys:
        yield _decoded(origin, content, [], guard)
    for window in _windows(content, preparer, guard, only):
        for slots in _grouped(window, bounds):
            yield _decoded(origin, content, slots, guard)


def _windows(
    content: Content,
    preparer: Preparer,
    guard: Callable[[], AbstractContextManager[object]],
    only: frozenset[int] | None,
) -> Iterator[list[_Slot]]:
    window: list[_Slot] = []
    size = 0
    ordinals = range(len(content.keys)) if only is None else sorted(only)
    for ordinal, encoded in zip(ordinals, content.images(ordinals), strict=True):
        with guard():
            slot = _probed(ordinal, encoded, preparer)
            window.append(slot if content.texts is None else _with_texts(slot, content.texts[ordinal], preparer))
        size += 0 if isinstance(encoded.data, Rejection) else len(encoded.data)
        if len(window) == WINDOW_IMAGES or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _probed(ordinal: int, encoded: Encoded, preparer: Preparer) -> _Slot:
    if isinstance(encoded.data, Rejection):
        return _rejected(ordinal, encoded, encoded.data)
    found = probe(encoded.data, preparer)
    if isinstance(found, Rejection):
        return _rejected(ordinal, encoded, found)
    # A window keeps walks that are views of its bytes: not those of a slice of a tar or a table, which was copied to be
    # walked, nor of a BMP in runs, which is expanded.
    is_light = isinstance(encoded.data, bytes) and found.inspected.container.held_bytes <= 1024 + len(encoded.data) // 8
    return _Slot(ordinal, encoded, found.probe, found.prepare if is_light else partial(prepare, encoded.data, preparer))


def _with_texts(slot: _Slot, texts: Mapping[str, str] | Rejection, preparer: Preparer) -> _Slot:
    if isinstance(slot.found, Rejection):
        return slot
    if isinstance(texts, Rejection):
        return _rejected(slot.ordinal, slot.encoded, replace(texts, header=slot.found.header))
    return replace(slot, texts=texts, text_tokens=preparer.text_tokens(texts))


def _rejected(ordinal: int, encoded: Encoded, rejection: Rejection) -> _Slot:
    return _Slot(ordinal, encoded, rejection, lambda: rejection)


def _grouped(window: Sequence[_Slot], bounds: BatchBounds) -> Iterator[list[_Slot]]:
    """Slots by size, in batches within the bounds; rejected ones cost nothing and stand first."""
    batch: list[_Slot] = []
    tokens = pixel_bytes = 0
    for slot in sorted(window, key=_by_size):
        cost = slot.shape.tokens + slot.text_tokens if slot.shape else 0
        size = slot.shape.height * slot.shape.width * 3 if slot.shape else 0
        is_over = tokens + cost > bounds.tokens or pixel_bytes + size > BATCH_PIXEL_BYTES or len(batch) == bounds.images
        if batch and is_over:
            yield batch
            batch, tokens, pixel_bytes = [], 0, 0
        batch.append(slot)
        tokens += cost
        pixel_bytes += size
    yield batch


def _by_size(slot: _Slot) -> tuple[int, int, int, int, int]:
    if slot.shape is None:
        return (0, 0, 0, 0, slot.ordinal)
    return (slot.shape.tokens, slot.shape.height, slot.shape.width, slot.text_tokens, slot.ordinal)


def _decoded(
    origin: Origin,
    content: Content,
    slots: Sequence[_Slot],
    guard: Callable[[], AbstractContextManager[object]],
) -> ReadyBatch:
    prepared = [_prepared(slot, guard) for slot in slots]
    rejections = tuple(result if isinstance(result, Rejection) else None for result in prepared)
    texts = tuple(slot.texts for slot, rejection in zip(slots, rejections, strict=True) if rejection is None)
    return ReadyBatch(
        origin=origin,
        ordinals=tuple(slot.ordinal for slot in slots),
        facts=_facts(content, slots, rejections),
        rejections=rejections,
        images=tuple(result for result in prepared if not isinstance(result, Rejection)),
        texts=None if content.texts is None else texts,
    )


def _prepared(slot: _Slot, guard: Callable[[], AbstractContextManager[object]]) -> NDArray[np.uint8] | Rejection:
    if isinstance(slot.found, Rejection):
        return slot.found
    with guard():
        return slot.prepare()


def _facts(content: Content, slots: Sequence[_Slot], rejections: Sequence[Rejection | None]) -> pa.Table:
    headers = [
        slot.found.header or (rejection.header if rejection else None)
        for slot, rejection in zip(slots, rejections, strict=True)
    ]
    data = [None if isinstance(slot.encoded.data, Rejection) else slot.encoded.data for slot in slots]
    columns: dict[str, list[Any]] = {
        "key": [content.keys[slot.ordinal] for slot in slots],
        "source": [slot.encoded.source for slot in slots],
        "sha256": [None if encoded is None else hashlib.sha256(encoded).hexdigest() for encoded in data],
        "offset": [slot.encoded.offset for slot in slots],
        "length": [slot.encoded.length for slot in slots],
        "row": [slot.encoded.row for slot in slots],
        "width": [header and header.width for header in headers],
        "height": [header and header.height for header in headers],
        "format": [header and header.format for header in headers],
        "frames": [header and header.frames for header in headers],
    }
    table = pa.table({field.name: storable(columns[field.name], field.type) for field in LOCATION}, schema=LOCATION)
    carried = content.carried.take(pa.array([slot.ordinal for slot in slots], pa.int64()))
    for name in carried.column_names:
        table = table.append_column(carried.schema.field(name), carried.column(name))
    return table


def rejected_batch(chunk: str, content: Content, ordinal: int, encoded: Encoded, rejection: Rejection) -> ReadyBatch:
    """One image that may not be decoded again, in its slot; its header is not read either."""
    slot = _rejected(ordinal, encoded, rejection)
    return ReadyBatch(
        origin=content.origin(chunk),
        ordinals=(ordinal,),
        facts=_facts(content, [slot], [rejection]),
        rejections=(rejection,),
        images=(),
    )
