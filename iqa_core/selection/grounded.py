"""Output of a grounding run -> columns beside those of a score table, and the regions of an image, for exports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.plan.plan import Contract
from iqa_core.errors import CallerError
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.regions.columns import IMAGE
from iqa_core.tables.regions.ledger import GroundingLedger, open_grounding

Place: TypeAlias = tuple[str, str, int | None]
"""Source, key and row of an image: what it is found by in both tables."""

JOINED = pa.schema(
    [("status", pa.string()), ("cell_min", pa.float32()), ("cell_max", pa.float32()), ("area_share", pa.float32())]
)
"""What is known of an image in a dimension, as columns `<dimension>_<name>`; null for an image that was not asked."""

NEEDED = ["dimension", "status", "cell_scores", "area_share"]


@dataclass(frozen=True, slots=True)
class GroundedTable:
    """One output of the grounding job, as it stood when it was opened."""

    uri: str
    contract: Contract
    ledger: GroundingLedger
    chunks: tuple[str, ...]
    """Names of the finished chunks, sorted."""

    @classmethod
    def open(cls, storage: Storage, given: str, flag: str = "--grounding") -> Self:
        """The tables of an output. Raises CallerError where there are none, or no chunk is finished."""
        contract, ledger = open_grounding(storage, given, flag)
        chunks = tuple(sorted(ledger.finished()))
        if not chunks:
            raise CallerError(f"{flag} {given}: none of its chunks is finished yet")
        return cls(absolute(given), contract, ledger, chunks)

    @property
    def about(self) -> dict[str, Any]:
        """What a selection notes of it."""
        return {"uri": self.uri, "fingerprint": self.contract.fingerprint, "chunks": len(self.chunks)}

    @property
    def schema(self) -> pa.Schema:
        """The columns that stand beside those of a score table."""
        return pa.schema(
            [field.with_name(f"{name}_{field.name}") for name in self.contract.grounded for field in JOINED]
        )

    def joined(self) -> pa.Table:
        """A row per image: IMAGE, then the columns of `schema`. Raises CallerError where an image is there twice."""
        parts = [self._joined(rows) for _, rows in self.ledger.grounding.read_all(self.chunks, [*IMAGE.names, *NEEDED])]
        table = pa.concat_tables(parts)
        places = table.group_by(IMAGE.names).aggregate([([], "count_all")])
        if places.num_rows < table.num_rows:
            twice = places.filter(pc.greater(places.column("count_all"), 1)).slice(0, 1).to_pylist()[0]
            raise CallerError(
                f"--grounding {self.uri} has several images with the key {twice['key']!r} of {twice['source']}; "
                "without a key of its own an image cannot be found in the score table"
            )
        return table

    def regions(self) -> dict[Place, list[Mapping[str, Any]]]:
        """Rows of `regions` that have a box, by image, in order."""
        found: dict[Place, list[Mapping[str, Any]]] = defaultdict(list)
        for _, rows in self.ledger.regions.read_all(self.chunks):
            for row in rows.filter(pc.is_valid(rows.column("box_x"))).to_pylist():
                found[row["source"], row["key"], row["row"]].append(row)
        return dict(found)

    def _joined(self, rows: pa.Table) -> pa.Table:
        """The images of a chunk, whose rows stand together, one per dimension."""
        names = self.contract.grounded
        columns: dict[str, pa.Array] = {}
        for name in names:
            own = rows.filter(pc.equal(rows.column("dimension"), name))
            columns = columns or {field.name: own.column(field.name) for field in IMAGE}
            cells = own.column("cell_scores").to_pylist()
            known: Mapping[str, Any] = {
                "status": own.column("status"),
                "cell_min": [None if scores is None else min(scores) for scores in cells],
                "cell_max": [None if scores is None else max(scores) for scores in cells],
                "area_share": own.column("area_share"),
            }
            columns |= {f"{name}_{field.name}": known[field.name] for field in JOINED}
        return pa.table(columns, schema=pa.schema([*IMAGE, *self.schema]))


def places_of(block: pa.Table) -> Iterator[Place]:
    """By what each row's image is found."""
    yield from zip(*(block.column(name).to_pylist() for name in IMAGE.names), strict=True)
