"""A score table of many small files -> the same table in few large ones, resumable and readable at any moment.

python jobs/compact_scores.py --scores s3://bucket/scores
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.compaction.settings import CompactSettings


def main(settings: CompactSettings) -> int:
    """Compact a score table; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow
    from jobs.compaction.flow import compact

    return compact(settings)


if __name__ == "__main__":
    sys.exit(run(CompactSettings, main))
