"""Images, or rows of a score table -> where each of them is bad, and scores of boxes that a user brings, in Parquet.

    python jobs/ground_corpus.py --input 'scores:s3://bucket/scores?where=distortion < 2.5' --output s3://bucket/where …

Run the same command again to go on after anything that stopped it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.grounding.settings import GroundSettings


def main(settings: GroundSettings) -> int:
    """Ground images; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow and Ray
    from jobs.grounding.flow import ground

    return ground(settings)


if __name__ == "__main__":
    sys.exit(run(GroundSettings, main))
