"""People's opinions -> an assessor that writes, trained by the order of its own answers.

    python jobs/train_grpo.py --train opinions.csv --base org/checkpoint --rubric attributes-v1 --output runs/ranked

Run the same command again to go on after anything that stopped it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.training.ranking_settings import RankingSettings


def main(settings: RankingSettings) -> int:
    """Train an assessor by ranking; the exit code."""
    # here, not above: --help and a mistyped flag are answered without torch and Ray
    from jobs.training.flow import train
    from jobs.training.ranking_job import checked

    return train(checked(settings))


if __name__ == "__main__":
    sys.exit(run(RankingSettings, main))
