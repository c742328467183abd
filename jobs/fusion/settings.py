"""The flags of the fusion job, documented where they are defined."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from jobs.command import JobSettings, Lasting


class FusionSettings(JobSettings):
    """Fit fusion weights to pairwise preferences (Bradley-Terry); runs in one process."""

    scores: str
    """Output of a scoring job of the images that were compared."""
    pairs: list[str] = Field(min_length=1)
    """Preferences: hpd:, image-reward: or pick-a-pic: and a file, or our own .csv, .jsonl or .parquet; repeatable."""
    output: Lasting
    """TOML for --fusion: a file, or a URI."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec where the scores are not local."""
    group_column: str = "group"
    """Column of our own files: pairs with the same value are never split between fitting and judging."""
    hold_out: bool = False
    """Judge on each group in turn, fitted on all the others, in place of random splits."""
    normalise: Literal["range", "quantiles"] = "range"
    """How scores on other ranges than 1 to 5 become that: by the ends of the range, or by quantiles of these scores,
    which then apply to every dimension."""
    signed: bool = False
    """Weights may be negative; the reward may then leave 1..5."""
    fit_pairs: int = Field(default=750, ge=2)
    """Pairs of a split to fit on."""
    judge_pairs: int = Field(default=250, ge=1)
    """Pairs of a split to judge on."""
    splits: int = Field(default=10, ge=1)
    """Random splits: whether the weights are stable."""
    seed: int = Field(default=0, ge=0)
    """Seed of splits and intervals."""
