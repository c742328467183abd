"""What the caller asks for -> a policy: rules in one fixed order, a digest, and the words for why an image was dropped.

    1 rejected      the image has no score
    2 where         the condition is false or null
    3 dedup         another image with the same bytes, asked about with the same texts, scored better
    4 quantile      a column lies below that quantile of what is left
    5 best_of       not among the n best of its group
    6 top_fraction  not in the best fraction of what is left
    7 top_k         not among the k best of what is left
    8 balance       left out so that every value of a column keeps as many

Each rule sees what the rules before it left. The number stands in every reason: `5:best_of`. Better means a higher
reward; of equal rewards the image that stands first in the score table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights

ORDER = ("rejected", "where", "dedup", "quantile", "best_of", "top_fraction", "top_k", "balance")

GROUPED = ("quantile", "best_of", "top_fraction", "top_k")
"""Rules that may work within groups."""


def reason(rule: str, detail: str | None = None) -> str:
    """`1:rejected:truncated`, `5:best_of`: the rule that dropped an image, by its place in the order."""
    step = f"{ORDER.index(rule) + 1}:{rule}"
    return step if detail is None else f"{step}:{detail}"


@dataclass(frozen=True, slots=True)
class Policy:
    """All that decides what is kept; the same policy on the same scores decides the same."""

    where: str | None = None
    """A condition over the columns, in SQL."""
    dedup: bool = False
    quantiles: Sequence[tuple[str, Decimal]] = ()
    """(column, q): keep what is at least the q-quantile of the column; one after the other."""
    best_of: int | None = None
    top_fraction: Decimal | None = None
    """Share that is kept, rounded up to whole images: of n images ceil(fraction * n)."""
    top_k: int | None = None
    balance: str | None = None
    per: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Rule -> columns that form its groups; nulls are one group, as in SQL's GROUP BY. Of `dedup`:
    columns with texts that images were asked about with."""
    seed: int = 0
    """Seed of the draw in `balance`."""
    temperature: float | None = None
    """Temperature of soft weights; None: every kept image weighs 1."""
    fusion: FusionWeights | None = None
    """Weights that the reward is computed with anew; None: the reward of the table."""
    combine: str | None = None
    """How several score tables become one: `stack` or `join`; None for one table."""

    def to_json(self) -> dict[str, Any]:
        """The resolved policy, for people and for the digest; weights that were fitted are in it as numbers."""
        fusion = self.fusion
        return {
            "where": self.where,
            "dedup": self.dedup,
            "quantiles": [[name, str(q)] for name, q in self.quantiles],
            "best_of": self.best_of,
            "top_fraction": None if self.top_fraction is None else str(self.top_fraction),
            "top_k": self.top_k,
            "balance": self.balance,
            "per": {rule: list(columns) for rule, columns in sorted(self.per.items())},
            "seed": self.seed,
            "temperature": self.temperature,
            "fusion": fusion
            and {
                "source": fusion.source,
                "weights": dict(zip(fusion.dimensions, fusion.weights, strict=True)),
                **({"curves": {name: c.to_json() for name, c in fusion.curves.items()}} if fusion.curves else {}),
            },
            "combine": self.combine,
            "order": list(ORDER),
        }

    @property
    def digest(self) -> str:
        """16 hex digits over everything that decides."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def parse_quantiles(values: Sequence[str]) -> tuple[tuple[str, Decimal], ...]:
    """`layout=0.3` -> ("layout", 0.3). Raises CallerError on any other form, or a q outside of 0..1."""
    return tuple(_quantile(value) for value in values)


def _quantile(value: str) -> tuple[str, Decimal]:
    name, separator, text = value.rpartition("=")
    if not separator or not name:
        raise CallerError(f"--quantile {value}: give it as column=q, as layout=0.3")
    try:
        q = Decimal(text)  # exact: as a binary number, 0.7 of 10 would be a little more than 7
    except InvalidOperation:
        raise CallerError(f"--quantile {value}: {text!r} is no number") from None
    if not q.is_finite() or not 0 <= q <= 1:
        raise CallerError(f"--quantile {value}: {text} is not between 0 and 1")
    return name, q


def parse_per(values: Sequence[str], rules: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`prompt` groups every rule in `rules` that can have groups, `best-of=prompt` that rule alone.

    rules: those of this policy. Raises CallerError for a group that no rule would use.
    """
    grouped = [rule for rule in GROUPED if rule in rules]
    found: dict[str, list[str]] = {}
    for value in values:
        head, separator, column = value.partition("=")
        rule = head.replace("-", "_")
        named = rule if separator and rule in GROUPED else None
        if (named is not None and named not in grouped) or not grouped:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in ([named] if named else GROUPED))
            raise CallerError(f"--per {value}: nothing would be done per group; it belongs to {flags}")
        for target in [named] if named else grouped:
            found.setdefault(target, []).append(column if named else value)
    return {rule: tuple(columns) for rule, columns in found.items()}
