"""A score table -> a decision per image, and what a trainer reads.

    python jobs/select_corpus.py --scores s3://bucket/scores --output s3://bucket/chosen --best-of 1 --per prompt

Nothing is scored here: a changed threshold costs seconds. The same policy on the same scores gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.selection.settings import SelectSettings


def main(settings: SelectSettings) -> int:
    """Select images; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow and DuckDB
    from jobs.selection.flow import select

    return select(settings)


if __name__ == "__main__":
    sys.exit(run(SelectSettings, main))
