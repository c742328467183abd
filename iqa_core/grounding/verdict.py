"""The record of a self-test -> by dimension whether worst cells are above chance, as a run notes and reports it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from iqa_core.agreement.measures import wilson
from iqa_core.errors import CallerError, told

RECORD = "grounding.json"
"""What `check --grounding … --output FOLDER` writes."""
MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a self-test found of one dimension in one grid."""

    is_above_chance: bool
    hits: int
    """Images whose worst cell is the spoilt one."""
    trials: int
    """Images that were spoilt."""
    chance: float

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """As `to_json` gives it."""
        return cls(bool(record["is_above_chance"]), int(record["hits"]), int(record["trials"]), float(record["chance"]))

    def to_json(self) -> dict[str, Any]:
        """JSON values, as plans and tables hold them."""
        return {name: getattr(self, name) for name in ("is_above_chance", "hits", "trials", "chance")}

    def __str__(self) -> str:
        low, high = wilson(self.hits, self.trials)
        found = (
            f"{self.hits / self.trials:.2f} ({low:.2f} to {high:.2f}) of {self.trials} images, chance {self.chance:.2f}"
        )
        return f"{'above' if self.is_above_chance else 'at'} chance: {found}"


def read_verdicts(given: Path, fingerprint: str, dimensions: Sequence[str], cells: int) -> dict[str, Verdict]:
    """Dimension -> verdict, out of a self-test's record, or the folder that it lies in.

    fingerprint: of the assessor that is asked now. Raises CallerError where the file cannot be read, is of another
    assessor, or says nothing of a dimension in cells x cells cells.
    """
    path = given / RECORD if given.is_dir() else given
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CallerError(f"--self-test {given}: {path} is no record of a self-test, which is small")
        record = json.loads(path.read_bytes())
        by, method, results = record["fingerprint"], record["method"], record["results"]
        found = {one["dimension"]: _verdict(one) for one in results if list(one["cells"]) == [cells, cells]}
    except OSError as error:
        raise CallerError(f"--self-test {given}: {told(error)}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise CallerError(
            f"--self-test {given}: {path} is not what `check --grounding FOLDER --output` writes "
            f"({type(error).__name__}: {error})"
        ) from error
    if by != fingerprint or method != "views":
        raise CallerError(
            f"--self-test {given}: it tried {method} of fingerprint {by}, and this run asks views of {fingerprint}; "
            "run `check --grounding` with the checkpoint, rubric and limits of this run"
        )
    if lacking := [name for name in dimensions if name not in found]:
        raise CallerError(
            f"--self-test {given}: it says nothing of {', '.join(lacking)} in {cells}x{cells} cells; name them by its "
            "--dimensions"
        )
    return {name: found[name] for name in dimensions}


def _verdict(result: Mapping[str, Any]) -> Verdict:
    kinds = [*result["kinds"].values()]
    hits, trials = (sum(int(kind[name]) for kind in kinds) for name in ("hits", "trials"))
    if not 0 <= hits <= trials or not trials:
        raise ValueError(f"{hits} of {trials} images")
    return Verdict(result["verdict"] == "above chance", hits, trials, float(result["chance"]))
