"""What people wrote about images, with their ratings -> chains, and the opinions that are in them.

JSONL, one line per rater and image:

    {"image": "hall.jpg", "rater": "r1", "caption": "…", "reasoning": "…", "rating": 3.5, "dimensions": {"noise": 4}}

Only `image` must be there, and one of the others beside `rater`. `dimensions` has as many as people rated, by any
names; those of the rubric are compared with its scores. Numbers are on 1..5, or ?worst=0&best=100 says otherwise. A
line without a rater is somebody else's than every other line. Relative paths are relative to the file's folder, or to
?images=FOLDER.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iqa_core.addresses import parse_address
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import ONE_TO_FIVE, NumberRange, Opinion, spread_of
from iqa_core.opinions.options import ScaleOptions, parsed
from iqa_core.opinions.rows import Row, read_rows, to_number
from iqa_core.rubrics.written.rubric import OVERALL

KIND = "chains"
"""What the address of such a file begins with among annotations."""


class ChainOptions(ScaleOptions):
    """`chains:people.jsonl?worst=0&best=100`."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What one person wrote about one image."""

    image: str
    """As the file names it."""
    path: Path
    rater: str | None
    caption: str | None
    """Texts without their tags; None where the person gave none."""
    reasoning: str | None
    ratings: Mapping[str, float] = field(default_factory=dict)
    """Dimension -> rating on 1 (worst) to 5 (best); the image as a whole is `quality`."""
    group: str | None = None

    def text(self, part: str) -> str | None:
        """`caption` or `reasoning`."""
        return self.caption if part == "caption" else self.reasoning


Chains = Mapping[Path, tuple[Chain, ...]]
"""Image -> what was written about it, one chain per rater, in the files' order."""


def load_chains(addresses: Sequence[str]) -> Chains:
    """All chains of these files, `chains:` before them or not.

    Raises CallerError where a file is missing or malformed, an option is unknown, a number lies outside of its range, a
    line says nothing, or a rater has two lines about one image.
    """
    found: dict[Path, list[Chain]] = {}
    for text in addresses:
        try:
            address = parse_address(text, frozenset({KIND}))
        except ValueError as error:
            raise CallerError(f"chains {text}: {error}") from None
        options = parsed(ChainOptions, address.options, text)
        for image, chains in _by_image(Path(address.place).expanduser(), options).items():
            found.setdefault(image, []).extend(chains)
    return {image: tuple(chains) for image, chains in found.items()}


def read(path: Path, options: ChainOptions) -> Iterator[Opinion | str]:
    """The opinions of all raters together, in order of images; nothing of an image that is only written about.

    Raises CallerError as `load_chains` does.
    """
    for image, chains in _by_image(path, options).items():
        for dimension in dict.fromkeys(name for chain in chains for name in chain.ratings):
            raters = tuple(chain.ratings[dimension] for chain in chains if dimension in chain.ratings)
            yield Opinion(
                image=chains[0].image,
                path=image,
                dimension=dimension,
                mos=sum(raters) / len(raters),
                dataset=options.dataset or path.stem,
                std=spread_of(raters),
                num_raters=len(raters),
                raters=raters,
                group=chains[0].group,
            )


def _by_image(path: Path, options: ChainOptions) -> dict[Path, list[Chain]]:
    if path.suffix != ".jsonl":
        raise CallerError(f"{path}: chains are .jsonl files, a line for each rater and image")
    folder = options.images or path.absolute().parent
    found: dict[Path, list[Chain]] = {}
    for row in read_rows(path):
        chain = _chain(row, folder, options)
        of_image = found.setdefault(chain.path, [])
        if chain.rater is not None and chain.rater in {other.rater for other in of_image}:
            raise CallerError(f"{row.place}: rater {chain.rater} has a line about {chain.image} already; keep one")
        of_image.append(chain)
    if not found:
        raise CallerError(f"{path} holds no line")
    return found


def _chain(row: Row, folder: Path, options: ChainOptions) -> Chain:
    image, scale = row.text("image"), options.scale or ONE_TO_FIVE
    caption, reasoning, ratings = _text(row, "caption"), _text(row, "reasoning"), _ratings(row, scale)
    if not ratings and caption is None and reasoning is None:
        raise CallerError(
            f"{row.place}: nothing is said of {image}; a line has one of caption, reasoning, rating and dimensions"
        )
    rater, group = row.name(None, "rater"), row.name(options.group, "group")
    return Chain(image, folder / image, rater, caption, reasoning, ratings, group)


def _text(row: Row, name: str) -> str | None:
    value = row.values.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise CallerError(f"{row.place}: {name} is {value!r}; a text is wanted")
    return value.strip()


def _ratings(row: Row, scale: NumberRange) -> dict[str, float]:
    """Those of dimensions, and the one of the image as a whole."""
    given: Any = row.values.get("dimensions") or {}
    if not isinstance(given, dict):
        raise CallerError(f"{row.place}: dimensions is {given!r}; an object of names and numbers is wanted")
    if OVERALL in given and row.values.get("rating") is not None:
        raise CallerError(f"{row.place}: rating and dimensions.{OVERALL} are the same; leave one of them out")
    numbers = {OVERALL: row.number("rating")}
    numbers |= {name: to_number(value, f"{row.place}: {name}") for name, value in given.items()}
    return {name: scale.mos(value, f"{row.place}: {name}") for name, value in numbers.items() if value is not None}
