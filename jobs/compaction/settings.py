"""The flags of the compaction job, documented where they are defined."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from jobs.command import JobSettings, Lasting


class CompactSettings(JobSettings):
    """Merge the small files of a table into few large ones; runs in one process, resumable at any point."""

    scores: Lasting
    """Output of a scoring or grounding job, of which no run is at work."""
    file_images: int = Field(default=262_144, ge=1)
    """Images of one file at most, taken that every chunk holds --chunk-images; 30 MB or so."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec where the scores are not local."""
    dry_run: bool = False
    """Say what would be merged; write nothing."""
