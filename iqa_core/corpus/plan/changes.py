"""Inputs and a plan -> the sources that no chunk covers, and the planned sources that have changed.

Both are sorted by URI, so they are compared as streams, in one pass.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from iqa_core.corpus.beside import Beside
from iqa_core.corpus.chunks import ReadOptions, Span
from iqa_core.corpus.plan.plan import Plan, Planned
from iqa_core.corpus.plan.selected import SelectedRows
from iqa_core.corpus.sources import Kind, Listing, Source, list_sources, relative
from iqa_core.storage.uris import absolute

CHANGES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Change:
    """A planned source that has changed since."""

    uri: str
    what: str
    chunks: frozenset[str]
    is_original: bool = False
    """Whether a score table names it, which says what it scored."""


@dataclass(slots=True)
class PlanComparison:
    """One pass over a run's inputs and its plan."""

    plan: Plan
    inputs: Sequence[str]
    beside: Beside
    retired: frozenset[str]
    """Chunks that the run retires: their sources are owed, as if no chunk covered them."""
    selected: SelectedRows
    """Score tables among the inputs, which are not in `inputs`."""
    owed: set[str] = field(default_factory=set)
    """URIs of the owed sources that were yielded; whoever plans one may remove it."""
    changes: list[Change] = field(default_factory=list)
    """Changes of other sources, as far as the pass has come."""
    _roots: Sequence[str] = field(init=False)
    _originals: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Changed original of a score table, and what happened -> chunks."""

    def __post_init__(self) -> None:
        self._roots = [*map(absolute, self.inputs), *self.selected.roots]

    def unplanned(self) -> Iterator[Source]:
        """Sources that no chunk covers, or only retired ones. `changes` is complete when they are exhausted."""
        planned = self._planned()
        tell = None if self.beside.options.reading == 1 else self.beside
        tables: dict[str, set[str]] = defaultdict(set)
        listed = list_sources(self.plan.storage, self.inputs, self.beside.listing, tell)
        rows = next(planned, None)
        for source in heapq.merge(listed, self.selected.sources(), key=lambda source: source.uri):
            while rows is not None and rows[0].span.source < source.uri:
                yield from self._unlisted(rows)
                rows = next(planned, None)
            if rows is None or rows[0].span.source > source.uri:
                self._note_originals(source, frozenset())
                yield source
                continue
            if rows[0].chunk in self.retired:
                yield self._again(source, rows[0].span)
            else:
                self._compare(source, rows, tables)
            rows = next(planned, None)
        while rows is not None:
            yield from self._unlisted(rows)
            rows = next(planned, None)
        what = "no longer describes files as it did"
        self.changes += [Change(uri, what, frozenset(chunks)) for uri, chunks in sorted(tables.items())]
        self.changes += [Change(*found, frozenset(chunks), True) for found, chunks in self._originals.items()]

    def _planned(self) -> Iterator[list[Planned]]:
        """Planned rows of each source: those of chunks that are not retired, or all where every chunk is."""
        for _, rows in groupby(self.plan.rows(), key=lambda row: row.span.source):
            found = list(rows)
            yield [row for row in found if row.chunk not in self.retired] or found

    def _compare(self, source: Source, rows: Sequence[Planned], tables: Mapping[str, set[str]]) -> None:
        """Note a planned source that has changed. tables: changed table that describes files -> chunks of the files."""
        was = rows[0].span
        if (was.size, was.etag) != (source.size, source.etag):
            if source.kind is not Kind.SCORES:
                self.changes.append(Change(source.uri, replaced(was.size, source.size), _chunk_names(rows)))
            elif not self._note_originals(source, _chunk_names(rows)):
                self.changes.append(Change(source.uri, "selects other rows", _chunk_names(rows)))
        table = was.metadata
        if table and table != source.metadata and (source.metadata or self._is_given(table.uri)):
            tables[table.uri] |= _chunk_names(rows)

    def _note_originals(self, source: Source, chunks: frozenset[str]) -> bool:
        """Note the changed originals of selected rows, and the chunks that these are planned in; whether there are any.

        An original may have changed for several sources.
        """
        changed = self.selected.changed(source) if source.kind is Kind.SCORES else ()
        for found in changed:
            self._originals[found] |= chunks
        return bool(changed)

    def _again(self, source: Source, was: Span) -> Source:
        """A source as it is now, under the key of its old rows: this run's input may be another folder around it.

        The table that describes it may lie outside that folder; then the planned one still applies.
        """
        self.owed.add(source.uri)
        table = was.metadata
        is_seen = source.metadata is not None or table is None or self._is_given(table.uri)
        return replace(source, key=was.key, metadata=source.metadata if is_seen else table)

    def _unlisted(self, rows: Sequence[Planned]) -> Iterator[Source]:
        """Planned source that was not listed: another run's where it lies outside this run's inputs, else it is gone.

        Loose images of other runs may share a retired chunk with a changed one: they are yielded as planned. Lists and
        lone `.arrow` files are looked up by name, since the listing of a folder leaves them out.
        """
        uri, kind, was = rows[0].span.source, rows[0].kind, rows[0].span
        is_given = self._is_given(uri)
        if rows[0].chunk in self.retired:
            if kind is Kind.IMAGE and not is_given:
                self.owed.add(uri)
                yield Source(uri, kind, was.key, was.size, was.etag, metadata=was.metadata)
        elif is_given and not (kind in (Kind.LIST, Kind.ARROW) and self.beside.storage.stat(uri) is not None):
            what = "now describes the files beside it" if uri in self.beside.surveys else "vanished"
            self.changes.append(Change(uri, what, _chunk_names(rows)))

    def _is_given(self, uri: str) -> bool:
        """Whether it is one of this run's inputs, or in one."""
        return any(uri == root or relative(uri, root) is not None for root in self._roots)


def replaced(then: int | None, now: int | None) -> str:
    """What is said of a file that is another one, of these bytes."""
    return "replaced" if then == now else f"replaced ({then} bytes then, {now} now)"


def changed_chunks(plan: Plan, inputs: Sequence[str], options: ReadOptions, selected: SelectedRows) -> frozenset[str]:
    """Names of the chunks with a source that has changed."""
    beside = Beside.of(plan.storage, options, Listing(Counter()), inputs)
    found = PlanComparison(plan, inputs, beside, frozenset(), selected)
    exhaust(found.unplanned())
    return frozenset(chunk for change in found.changes for chunk in change.chunks)


def exhaust(sources: Iterator[Source]) -> None:
    """Run an iterator to its end, for what it notes on the way."""
    deque(sources, maxlen=0)


def changes_message(changes: Sequence[Change]) -> str:
    """The message of a run that stops for these: the first CHANGES_SHOWN, and the ways out."""
    shown = "\n".join(f"  {change.what}: {change.uri}" for change in changes[:CHANGES_SHOWN])
    more = f"\n  and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
    are_originals = any(change.is_original for change in changes)
    anew = "scores their chunks anew" + are_originals * " (without originals of a score table: score that anew first)"
    return (
        f"{len(changes)} planned sources are no longer what they were:\n{shown}{more}\n"
        f"--on-changed rescore {anew}, --on-changed ignore keeps what is planned and scored"
    )


def _chunk_names(rows: Sequence[Planned]) -> frozenset[str]:
    return frozenset(row.chunk for row in rows)
