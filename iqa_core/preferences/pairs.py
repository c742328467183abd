"""Preference files -> pairs of images of which people preferred one, or neither.

hpd:<file>          HPDv2: `prompt`, `image_path` (a list), `rank` (1 is best) of each
image-reward:<file> ImageReward: `prompt`, `generations` (a list), `ranking` (1 is best) of each
pick-a-pic:<file>   Pick-a-Pic, Parquet: `jpg_0`, `jpg_1` (bytes), `label_0`, `label_1` (1, 0, or .5 for a tie), maybe
                    `has_label` (false where nobody chose), `caption`
<file>              our own CSV, JSONL or Parquet: `first`, `second`, `preferred` (first, second, tie), maybe `group`
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from iqa_core.addresses import parse_address
from iqa_core.errors import CallerError
from iqa_core.opinions.rows import Row, read_rows, to_number

SHARES = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True, slots=True)
class Preference:
    """Two images of one group."""

    first: str
    """Key of the score table, or SHA-256 (hex) of the encoded image."""
    second: str
    share: float
    """1: the first is preferred; 0: the second; .5: a tie."""
    group: str
    """Pairs of one group must not be split between fitting and judging; such as the prompt, empty where not known."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """All pairs of one or more files, in order."""

    pairs: tuple[Preference, ...]
    undecided: int
    """Rows of the files in which nobody said which image is better, nor that both are alike."""

    def __iter__(self) -> Iterator[Preference]:
        return iter(self.pairs)


def load_pairs(addresses: Sequence[str], group_column: str = "group") -> Preferences:
    """All pairs of these files. group_column: the column with the group, in our own files.

    Raises CallerError when a file is missing or malformed, or there is no pair.
    """
    found = [pair for address in addresses for pair in _pairs(address, group_column)]
    pairs = tuple(pair for pair in found if pair is not None)
    undecided = len(found) - len(pairs)
    if not pairs:
        rows = f" ({undecided:,} rows without a choice)" if undecided else ""
        raise CallerError(f"{', '.join(addresses)}: there is no pair in it{rows}")
    return Preferences(pairs, undecided)


def pairs_of_ranking(images: Sequence[str], ranks: Sequence[float], group: str) -> Iterator[Preference]:
    """Every two images of a ranking; 1 is best, equal ranks are ties."""
    for (first, a), (second, b) in combinations(zip(images, ranks, strict=True), 2):
        yield Preference(first, second, 0.5 if a == b else float(a < b), group)


def _pairs(text: str, group_column: str) -> Iterator[Preference | None]:
    """None for a row in which nobody chose."""
    try:
        address = parse_address(text, frozenset(_READERS) - {""})
    except ValueError as error:
        raise CallerError(f"pairs {text}: {error}") from None
    if address.options:
        raise CallerError(f"pairs {text}: there are no options; {', '.join(address.options)} would be ignored")
    for row in read_rows(Path(address.place).expanduser()):
        yield from _READERS[address.kind](row, group_column)


def _own(row: Row, group_column: str) -> Iterator[Preference | None]:
    preferred = row.text("preferred")
    if preferred not in SHARES:
        raise CallerError(f"{row.place}: preferred is {preferred!r}; first, second or tie is wanted")
    yield Preference(row.text("first"), row.text("second"), SHARES[preferred], str(row.values.get(group_column) or ""))


def _ranking(images: str, ranks: str) -> Callable[[Row, str], Iterator[Preference | None]]:
    def read(row: Row, _: str) -> Iterator[Preference | None]:
        names, numbers = row.values.get(images), row.values.get(ranks)
        if not (isinstance(names, list) and isinstance(numbers, list) and len(names) == len(numbers)):
            raise CallerError(f"{row.place}: {images} and {ranks} are two lists of one length")
        places = [_place(number, f"{row.place}: {ranks}") for number in numbers]
        yield from pairs_of_ranking([str(name) for name in names], places, row.text("prompt"))

    return read


def _place(value: object, where: str) -> float:
    """One place of a ranking. Raises CallerError when it is no number."""
    found = to_number(value, where)
    if found is None:
        raise CallerError(f"{where} has {value!r}; every image of a ranking needs its place")
    return found


def _pick_a_pic(row: Row, _: str) -> Iterator[Preference | None]:
    """Its images have no names, so they are found by their bytes."""
    share = _chosen(row)
    if share is None:
        yield None
        return
    first, second = (_digest(row, name) for name in ("jpg_0", "jpg_1"))
    yield Preference(first, second, share, row.text("caption"))


def _chosen(row: Row) -> float | None:
    """Share of the first image; None where nobody chose: it is said, there is no label, or both labels are 0."""
    if "label_0" not in row.values:
        raise CallerError(f"{row.place}: no column label_0; there are {', '.join(row.values)}")
    labels = [row.number(name) for name in ("label_0", "label_1")]
    if row.values.get("has_label") is False or labels[0] is None or labels == [0, 0]:
        return None
    if labels[0] not in SHARES.values() or labels[1] not in (None, 1 - labels[0]):
        raise CallerError(
            f"{row.place}: label_0 is {labels[0]:g} and label_1 {labels[1]}; 0, .5 or 1 is wanted, and both sum to 1"
        )
    return labels[0]


def _digest(row: Row, name: str) -> str:
    data = row.values.get(name)
    if not isinstance(data, bytes):
        raise CallerError(f"{row.place}: {name} is no image's bytes")
    return hashlib.sha256(data).hexdigest()


_READERS: Mapping[str, Callable[[Row, str], Iterator[Preference | None]]] = {
    "": _own,
    "hpd": _ranking("image_path", "rank"),
    "image-reward": _ranking("generations", "ranking"),
    "pick-a-pic": _pick_a_pic,
}
