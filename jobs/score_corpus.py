"""Images anywhere -> one row of scores per image, in Parquet.

    python jobs/score_corpus.py --input s3://bucket/images --output s3://bucket/scores --assessor.checkpoint …

Run the same command again to go on after anything that stopped it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.scoring.settings import ScoreSettings


def main(settings: ScoreSettings) -> int:
    """Score images; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow and Ray
    from jobs.scoring.flow import score

    return score(settings)


if __name__ == "__main__":
    sys.exit(run(ScoreSettings, main))
