"""`--annotations` -> opinions: the one door to every format.

sa-bench:<folder>?split=test      deqa:<file>.json      q-align:<file>.json?worst=0&best=100
spaq:<file>.csv                   pyiqa:<file>.csv?set=koniq10k
chains:<file>.jsonl               what people wrote, with their ratings
<file>.csv, .jsonl or .parquet    our own: image, dimension, mos[, std, count, group]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from iqa_core.addresses import parse_address
from iqa_core.errors import CallerError
from iqa_core.opinions import chains, deqa, pyiqa, q_align, sa_bench, spaq, table
from iqa_core.opinions.opinion import Opinion, Opinions, collected
from iqa_core.opinions.options import FileOptions, parsed
from iqa_core.opinions.terms import ANY, Terms

Reader = Callable[[Path, Any], Iterator[Opinion | str]]

FORMATS: Mapping[str, tuple[type[FileOptions], Reader]] = {
    "": (table.TableOptions, table.read),
    "sa-bench": (sa_bench.SaBenchOptions, sa_bench.read),
    chains.KIND: (chains.ChainOptions, chains.read),
    "deqa": (deqa.DeqaOptions, deqa.read),
    "pyiqa": (pyiqa.PyiqaOptions, pyiqa.read),
    "q-align": (q_align.QAlignOptions, q_align.read),
    "spaq": (spaq.SpaqOptions, spaq.read),
}
"""Kind, the word before the colon -> its options and its reader; without a kind it is our own table."""


def load_opinions(addresses: Sequence[str], group_column: str | None = None, terms: Terms = ANY) -> Opinions:
    """All opinions of these annotation files, on 1..5.

    group_column: the `?group=` of files whose address has none. terms: of the rubric that the opinions are about.
    Raises CallerError when a file is missing or malformed, an option is unknown, a value lies outside of its range,
    there is no column with texts for a slot, or there is not a single opinion.
    """
    found = (row for address in addresses for row in _rows(address, group_column, terms))
    return collected(found, ", ".join(addresses))


def _rows(text: str, group_column: str | None, terms: Terms) -> Iterator[Opinion | str]:
    try:
        address = parse_address(text, frozenset(FORMATS) - {""})
    except ValueError as error:
        raise CallerError(f"annotations {text}: {error}") from None
    options_type, read = FORMATS[address.kind]
    if read is table.read:
        read = partial(table.read, terms=terms)
    given = {} if group_column is None else {"group": group_column}
    options = parsed(options_type, given | dict(address.options), text)
    try:
        for row in read(Path(address.place).expanduser(), options):
            if isinstance(row, Opinion) and terms.needed(row.dimension) and not row.texts:
                raise CallerError(
                    f"annotations {text}: opinions on {row.dimension} are to come with texts for slots, and only a "
                    "table of our own has columns of texts"
                )
            yield row
    except OSError as error:
        raise CallerError(f"annotations {text} cannot be read: {error.strerror}") from None
