"""What was read of a released judge: the content of a rubric's TOML, where its words stand, and what is to be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReleasedWords:
    """A rubric in a judge's words."""

    content: dict[str, Any]
    """Keys and values of the TOML file."""
    sources: tuple[tuple[str, str], ...]
    """Which words -> file and lines."""
    notes: tuple[str, ...]
    """What the words alone do not say, a sentence each."""
