"""Inputs and a plan -> a proposal: chunks to add and to retire; nothing is written until it is applied."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Literal

import pyarrow as pa

from iqa_core.addresses import SCORES
from iqa_core.corpus.beside import Beside
from iqa_core.corpus.carried_types import Bounds
from iqa_core.corpus.chunks import ReadOptions, Span, Survey
from iqa_core.corpus.columns import InputColumn, plain, promoted, repeated, settled_schema, table_names
from iqa_core.corpus.overlaps import distinct_inputs, without_listed
from iqa_core.corpus.plan.changes import PlanComparison, changed_chunks, changes_message, exhaust
from iqa_core.corpus.plan.cutting import cut
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.segments import Draft, NewChunk
from iqa_core.corpus.plan.selected import SelectedRows, SelectedTable
from iqa_core.corpus.readers.tabular import NoImageColumn
from iqa_core.corpus.reading import survey_source
from iqa_core.corpus.slot_columns import shown
from iqa_core.corpus.sources import Kind, Listing, Source
from iqa_core.errors import CallerError, IqaError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.uris import absolute, is_local, join, scratch_of

SURVEY_THREADS = 16
"""Sources surveyed in parallel where each one costs round trips."""

LOCAL_SURVEY_THREADS = 4
"""On a local disk more threads gain nothing, and each keeps a heap of its own: 16 of them 10 MiB for the whole run."""

OnChanged = Literal["stop", "ignore", "rescore"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """Chunks to add to a plan, and chunks to retire."""

    contract: Contract
    chunks: Draft
    retired: frozenset[str] = frozenset()
    """Chunks that `--on-changed rescore` retires; those of their sources that still exist are in `chunks`."""
    listing: Listing = field(default_factory=lambda: Listing(Counter()))
    """What the listing found beside sources."""
    left_out: frozenset[str] = frozenset()
    """Columns of new input that the table, whose columns are fixed, does not have."""
    next_segment: int = 0
    """Number of the first segment that it would add to its plan."""
    unfit: Counter[str] = field(default_factory=Counter)
    """Column -> number of its values in lists that do not have the type that `--carry` gives: they become null."""
    selected: SelectedRows = field(default_factory=lambda: SelectedRows(()))
    """Rows of score tables that its chunks are made of."""


@dataclass(frozen=True, slots=True)
class _CarriedColumns:
    """Input columns that several sources may share; `uri` is the first such source."""

    uri: str
    schema: pa.Schema
    bounds: Mapping[str, Bounds]
    """Bounds over all sources; a column is missing where one source does not know them."""

    def joined(self, bounds: Mapping[str, Bounds]) -> _CarriedColumns:
        """The same columns, with the bounds of one more source."""
        wider = {
            name: (min(low, bounds[name][0]), max(high, bounds[name][1]))
            for name, (low, high) in self.bounds.items()
            if name in bounds
        }
        return replace(self, bounds=wider)


def propose(
    plan: Plan,
    wanted: Contract,
    inputs: Sequence[str],
    options: ReadOptions,
    *,
    own_columns: frozenset[str],
    limit: int | None,
    on_changed: OnChanged,
    exact: bool = False,
    tables: Sequence[SelectedTable] = (),
) -> Proposal:
    """List the inputs, compare with the plan, and cut what is new.

    wanted: the contract that this run would lay down; its carried columns are filled in from the inputs.
    options: the reading is taken from the contract that is there, else from the wanted one.
    own_columns: names of the table that will be written, which an input column may not have (`input_<name>` then).
    exact: count the images of every tar, whatever it costs; a limit needs that anyway.
    tables: score tables of which rows are an input as well.
    Raises CallerError if the plan was made under another contract, for changed sources (unless told what to do), for a
    slot without a column, and if there is nothing at all to score.
    """
    inputs = distinct_inputs(inputs)
    next_segment = plan.next_segment()
    laid_down = checked_contract(plan, wanted)
    options = replace(options, reading=(laid_down or wanted).reading)
    selected = SelectedRows(tables)
    # a pass of its own: retired chunks must be known before anything is cut
    retired = changed_chunks(plan, inputs, options, selected) if on_changed == "rescore" else frozenset()
    listing = Listing(Counter())
    beside = Beside.of(plan.storage, options, listing, inputs)
    found = PlanComparison(plan, inputs, beside, retired, selected)
    new = without_listed(found.unplanned(), plan.storage, inputs, options, found.owed)
    changes = found.changes
    room = _Room(limit, _planned_images(plan) if limit is not None else 0, found.owed)
    columns: list[_CarriedColumns] = []
    unfit: Counter[str] = Counter()
    seen: dict[str, set[str]] = {}
    draft = Draft(retired)
    pool = _survey_pool(inputs)
    try:
        fitting = (source for source in new if room.has_for(source))
        surveyed = _readable(
            _surveyed(pool, beside, selected, fitting, exact=exact or limit is not None), listing, room
        )
        if wanted.slots.columns:
            surveyed = _seeing(surveyed, [*inputs, *selected.roots], seen)
        chunks = cut(_noting(surveyed, columns, unfit), options)
        _add(draft, takewhile(lambda _: not (changes and on_changed == "stop"), chunks), room)
    finally:  # here, not in the generator, which ends when the garbage collector finds it
        pool.shutdown(cancel_futures=True)
        selected.close()
    exhaust(new)  # the limit may have ended the pass early: this finds the other changes
    for survey in beside.surveys.values():
        unfit.update(survey.unfit)
    if changes and on_changed == "stop":
        raise CallerError(changes_message(changes))
    draft.close()
    contract, left_out = _with_columns(wanted, laid_down, columns, own_columns)
    if contract.slots.columns:
        _check_slots(contract, seen, own_columns, plan)
    if laid_down is None:
        _check_is_any([*inputs, *selected.roots], draft, listing)
        _check_flags_are_used(options, draft, columns)
    return Proposal(contract, draft, retired, listing, left_out, next_segment, unfit, selected)


def _survey_pool(inputs: Sequence[str]) -> ThreadPoolExecutor:
    is_local_only = all(is_local(absolute(given)) for given in inputs)
    return ThreadPoolExecutor(LOCAL_SURVEY_THREADS if is_local_only else SURVEY_THREADS)


@dataclass(slots=True)
class _Room:
    """Bound on a proposal: new sources, whole ones, up to a limit, and every source of retired chunks.

    Sources of retired chunks are not new: without them, images that have rows would lose them, and no run would plan
    those again that lie under other runs' inputs.
    """

    limit: int | None
    images: int
    """Images that are planned, with those of retired chunks."""
    owed: set[str]
    """URIs of sources of retired chunks that are still to be planned."""
    _behind: frozenset[str] = frozenset()

    @property
    def is_full(self) -> bool:
        return self.limit is not None and self.images >= self.limit

    def has_for(self, source: Source) -> bool:
        return not self.is_full or source.uri in self.owed

    def take(self, spans: Sequence[Span]) -> None:
        self.images += sum(span.images or 0 for span in spans if span.source not in self.owed)
        sources = frozenset(span.source for span in spans)
        self.owed -= self._behind - sources
        self._behind = sources


def _add(draft: Draft, cut: Iterable[NewChunk], room: _Room) -> None:
    """Add chunks as far as there is room; a source that was begun is added whole."""
    for kind, spans in cut:
        if room.is_full and spans[0].source != draft.last_source:
            spans = tuple(span for span in spans if span.source in room.owed)
        if spans:
            draft.add(kind, spans)
            room.take(spans)


def apply(plan: Plan, proposal: Proposal) -> bool:
    """Write the proposal; False if another driver wrote in between (propose again).

    Raises CallerError if that driver's contract is another one.
    """
    contract = plan.create(proposal.contract)
    if differences := contract.differences(proposal.contract):
        raise CallerError(_differences_message(plan, differences))
    other = proposal.contract
    if contract.reading != other.reading or not contract.carried.equals(other.carried):
        return False
    for file in proposal.selected.files:
        plan.storage.put(join(plan.folder, file.name), file.read_bytes(), scratch=scratch_of(plan.output))
    numbered = enumerate(proposal.chunks.segments(), start=proposal.next_segment)
    if all(plan.add_segment(number, data) for number, data in numbered):
        return True
    for file in proposal.selected.files:  # no segment that counts will ever name them
        with suppress(IqaError):  # a store may let us put, and not delete
            plan.storage.delete(join(plan.folder, file.name))
    return False


def _check_is_any(inputs: Sequence[str], draft: Draft, listing: Listing) -> None:
    if not draft:
        passed = ", ".join(f"{count} {name}" for name, count in listing.ignored.most_common(3))
        what = passed or ("no row passes" if inputs[-1].startswith(SCORES) else "no files at all")
        raise CallerError(f"--input {', '.join(inputs)}: nothing to score there ({what})")


def _check_flags_are_used(options: ReadOptions, chunks: Iterable[NewChunk], tables: Sequence[_CarriedColumns]) -> None:
    """Raises CallerError for a flag about columns that no input has: a setting that would be ignored is an error."""
    columns = {"image": options.image_column, "uri": options.uri_column, "id": options.id_column}
    given = {name: value for name, value in columns.items() if value is not None}
    kinds = {kind for kind, _ in chunks} if given else set()
    with_columns = {Kind.PARQUET, Kind.ARROW, Kind.LIST}
    for name, value in given.items():
        # rows of a score table have their keys already
        if not kinds & (with_columns if name == "id" else {*with_columns, Kind.SCORES}):
            raise CallerError(f"--{name}-column {value}: none of the inputs is a table with columns")
    for name in options.carry:
        if not any(name in table.schema.names for table in tables):
            raise CallerError(f"--carry {name}: none of the inputs has such a column or sidecar field")


def _check_slots(contract: Contract, seen: Mapping[str, set[str]], own: frozenset[str], plan: Plan) -> None:
    """Raises CallerError for a slot's column that is no text, or that an input lacks of which nothing is planned yet.

    seen: input -> columns of its new sources, by their own names.
    """
    contract.slots.check(contract.carried)
    columns = contract.slots.columns
    tables = {given: table_names(sorted(names), own, contract.reading) for given, names in seen.items()}
    lacking = {given.rstrip("/"): given for given, there in tables.items() if not set(columns.values()) <= set(there)}
    planned = {_input_of(row.span.source, lacking) for row in plan.rows()} if lacking else set()
    for given in lacking.values():
        if given not in planned:
            slot, name = next((slot, name) for slot, name in columns.items() if name not in tables[given])
            raise CallerError(
                f"--input {given}: it has no column {name}, from which the rubric's {{{slot}}} comes "
                f"({shown(tables[given])}); give it one, score it into an output of its own by --slot {slot}=COLUMN, "
                "or leave it out"
            )


def checked_contract(plan: Plan, wanted: Contract) -> Contract | None:
    """The contract of the output, None if there is none. Raises CallerError if this run would break it."""
    laid_down = plan.contract()
    if laid_down is not None and (differences := laid_down.differences(wanted)):
        raise CallerError(_differences_message(plan, differences))
    return laid_down


def _planned_images(plan: Plan) -> int:
    return sum(row.span.images or 0 for row in plan.rows())


def _surveyed(
    pool: ThreadPoolExecutor, beside: Beside, selected: SelectedRows, sources: Iterable[Source], exact: bool
) -> Iterator[tuple[Source, Callable[[], Survey]]]:
    """Each source with its survey, in order; surveys of containers run in the pool, a few sources ahead."""
    pending: deque[tuple[Source, Callable[[], Survey]]] = deque()
    for source in sources:
        described = None if source.metadata is None else beside.surveys.get(source.metadata.uri)
        survey = partial(survey_source, beside.storage, source, beside.options, exact, described)
        if source.kind is Kind.SCORES:  # its rows are drafted in the order in which they are planned
            survey = partial(selected.survey, source, beside.options)
        is_quick = source.kind in (Kind.IMAGE, Kind.SCORES)
        pending.append((source, survey if is_quick else pool.submit(survey).result))
        if len(pending) > 4 * SURVEY_THREADS:
            yield pending.popleft()
    yield from pending


def _readable(
    surveyed: Iterable[tuple[Source, Callable[[], Survey]]], listing: Listing, room: _Room
) -> Iterator[tuple[Source, Survey]]:
    """Sources with their surveys. An unreadable source is planned whole: its chunk stays unfinished."""
    for source, survey in surveyed:
        if not room.has_for(source):  # the pool runs ahead of the room
            continue
        try:
            yield source, survey()
        except NoImageColumn:
            if source.is_named:
                raise
            listing.ignored["table without an image column"] += 1
        except (Missing, Forbidden, FetchFailed):
            span = Span(source.uri, source.key, source.size, source.etag, 0, source.size or 0, None)
            yield source, Survey((replace(span, metadata=source.metadata),), pa.schema([]))


def _seeing(
    surveyed: Iterable[tuple[Source, Survey]], inputs: Sequence[str], seen: dict[str, set[str]]
) -> Iterator[tuple[Source, Survey]]:
    """The same surveys, of which the columns are noted by input; an unreadable or empty source counts for nothing."""
    known = {given.rstrip("/"): given for given in inputs}
    for source, survey in surveyed:
        if len(survey.carried) or any(span.images is not None for span in survey.spans):
            given = _input_of(source.uri, known)
            seen.setdefault(given, set()).update(survey.carried.names)
        yield source, survey


def _input_of(uri: str, known: Mapping[str, str]) -> str:
    """The input that a source is or lies in; itself where it lies in none. known: by the URI without a last slash."""
    above = uri
    while above not in known and above:
        above = above.rpartition("/")[0]
    return known.get(above, uri)


def _noting(
    surveyed: Iterable[tuple[Source, Survey]], tables: list[_CarriedColumns], unfit: Counter[str]
) -> Iterator[tuple[Source, Survey]]:
    """The same surveys, of which each schema is noted once."""
    for source, survey in surveyed:
        unfit.update(survey.unfit)
        place = next((i for i, known in enumerate(tables) if survey.carried.equals(known.schema)), None)
        if place is not None:
            tables[place] = tables[place].joined(survey.bounds)
        elif len(survey.carried):
            tables.append(_CarriedColumns(source.uri, survey.carried, survey.bounds))
        yield source, survey


def _with_columns(
    wanted: Contract, laid_down: Contract | None, tables: Sequence[_CarriedColumns], own: frozenset[str]
) -> tuple[Contract, frozenset[str]]:
    """The contract with its carried columns, and the columns that it has no place for.

    Raises CallerError for a column that cannot be carried, or whose values do not go into the type that is laid down.
    """
    reading = (laid_down or wanted).reading
    columns = [column for table in tables for column in _columns_of(table, own, reading)]
    if laid_down is None:
        return replace(wanted, carried=settled_schema(columns)), frozenset()
    names = frozenset(laid_down.carried.names)
    for column in columns:
        if column.name in names:
            _check_goes_into(laid_down.carried.field(column.name).type, column, reading)
    return laid_down, frozenset(column.name for column in columns) - names


def _check_goes_into(known: pa.DataType, column: InputColumn, reading: int) -> None:
    """Raises CallerError where a column's values do not go into the contract's type.

    Any value goes into text; by reading 1, so do values of types that Arrow promotes to the contract's.
    """
    if pa.types.is_string(known) or known == column.type:
        return
    if reading == 1:
        [given] = plain(pa.schema([(column.name, column.type)]))
        try:
            if promoted(known, given.type) == known:
                return
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass  # `check_held` raises below
    column.check_held(known)


def _columns_of(table: _CarriedColumns, own: frozenset[str], reading: int) -> list[InputColumn]:
    """A source's columns with their names in the score table."""
    names = table_names(table.schema.names, own, reading)
    if doubled := repeated(names):
        shown = ", ".join(map(repr, doubled))
        raise CallerError(f"{table.uri}: two of its columns would be {shown} in the score table; rename one")
    return [
        InputColumn(table.uri, field.name, name, field.type, table.bounds.get(field.name))
        for field, name in zip(table.schema, names, strict=True)
    ]


def _differences_message(plan: Plan, differences: Sequence[str]) -> str:
    shown = "\n".join(f"  {difference}" for difference in differences)
    return (
        f"--output {plan.output} holds results that were made in another way:\n{shown}\n"
        "choose another --output, or run with what it was made with"
    )
