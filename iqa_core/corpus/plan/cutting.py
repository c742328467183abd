"""Surveyed sources -> chunks: containers as their survey cuts them, loose images and selected rows put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from iqa_core.corpus.chunks import ReadOptions, Span, Survey
from iqa_core.corpus.plan.segments import NewChunk
from iqa_core.corpus.sources import Kind, Source


@dataclass(slots=True)
class _Open:
    """Spans that wait for more of their kind and folder."""

    options: ReadOptions
    group: tuple[Kind, str] = (Kind.IMAGE, "")
    spans: list[Span] = field(default_factory=list)
    images: int = 0
    size: int = 0

    def has_room_for(self, group: tuple[Kind, str], images: int, size: int) -> bool:
        is_within = self.images + images <= self.options.chunk_images and self.size + size <= self.options.chunk_bytes
        return group == self.group and is_within

    def taken(self) -> Iterator[NewChunk]:
        """The chunk of all that waits, if anything does."""
        if self.spans:
            yield self.group[0], tuple(self.spans)
        self.spans, self.images, self.size = [], 0, 0


def cut(surveyed: Iterable[tuple[Source, Survey]], options: ReadOptions) -> Iterator[NewChunk]:
    """Chunks in order of sources. Loose images on the two sides of a container are two chunks: a segment stays sorted.

    Rows of several chunks of one score table become one chunk, but those of a large one chunks of its own: so a source
    that is planned anew takes no part of another with it.
    """
    waiting = _Open(options)
    for source, survey in surveyed:
        group = _group(source)
        if group is None or len(survey.spans) > 1:
            yield from waiting.taken()
            yield from ((source.kind, (span,)) for span in survey.spans)
            continue
        images, size = sum(span.images or 0 for span in survey.spans), source.size or 0
        if not waiting.has_room_for(group, images, size):
            yield from waiting.taken()
        waiting.group = group
        waiting.spans += survey.spans
        waiting.images += images
        waiting.size += size
    yield from waiting.taken()


def _group(source: Source) -> tuple[Kind, str] | None:
    """What may share a chunk: loose images, and rows of one score table; None for a container."""
    if source.kind is Kind.IMAGE:
        return source.kind, ""
    return (source.kind, source.uri.rpartition("/")[0]) if source.kind is Kind.SCORES else None
