"""The flags of the evaluation, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from iqa_core.assessor.config import AssessorConfig
from jobs.command import Lasting
from jobs.opinion_texts import OpinionTexts


class EvaluateSettings(OpinionTexts):
    """Hold scores against people's opinions: correlations with intervals, per dimension and overall."""

    annotations: list[str] = Field(min_length=1)
    """Opinions: sa-bench:<folder>?split=test, a .csv, .jsonl or .parquet, or another format; may be repeated."""
    scores: str | None = None
    """Output of the scoring job, to be judged as it is; default: the images are scored here, in this process."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec for a score table that is not local."""
    assessor: AssessorConfig = AssessorConfig()
    rubric: str | None = None
    """Name, path of a TOML, or sa-bench:<annotations>?prompt=4; default: the one that the checkpoint was trained on."""
    against: list[str] = Field(default_factory=list)
    """Another assessor on the same opinions: <checkpoint>?rubric=<rubric>, or scores:<output>; may be repeated."""
    dimension: list[str] = Field(default_factory=list)
    """Dimensions of the annotations to look at; may be repeated; default: all."""
    limit: int | None = Field(default=None, ge=1)
    """Look at this many of the images, drawn at random."""
    seed: int = Field(default=0, ge=0)
    """For --limit and for the intervals."""
    hold_out_by: str | None = None
    """Column of the annotations, such as model: figures for each of its values, and how they spread."""
    resamples: int = Field(default=1000, ge=0)
    """Bootstrap resamples behind each interval; 0 for none."""
    chains: list[str] = Field(default_factory=list)
    """What people wrote about the images, <file>.jsonl, which the model's texts are held against; may be repeated."""
    texts_model: Path | None = None
    """With --chains: local folder of a transformers model, by whose embeddings meanings are compared."""
    caption_only: bool = False
    """Have each caption rated once more without its image, and hold these ratings against the opinions as well."""
    matrix: bool = False
    """Hold the scores of each attribute against the opinions on every other one: are attributes told apart?"""
    alone: list[str] = Field(default_factory=list)
    """With --matrix: ATTRIBUTE=<judge>, as in --against, that was asked for this attribute alone; may be repeated."""
    sheet: Lasting | None = None
    """Folder for a Label Studio sheet on which people rate what was written; `python -m iqa_core ratings` reads it."""
    output: Lasting | None = None
    """JSON file for all figures; the table for people goes to standard output."""
    plots: Lasting | None = None
    """Scores against opinions, a picture per dimension and assessor, in one .png, .svg or .pdf; needs matplotlib."""
