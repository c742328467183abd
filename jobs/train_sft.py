"""People's opinions -> a fine-tuned assessor that scoring and serving load.

    python jobs/train_sft.py --train opinions.csv --base org/checkpoint --output runs/first --num-workers 4

Run the same command again to go on after anything that stopped it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.training.settings import TrainSettings


def main(settings: TrainSettings) -> int:
    """Fine-tune an assessor; the exit code."""
    # here, not above: --help and a mistyped flag are answered without torch and Ray
    from jobs.training.flow import train
    from jobs.training.job import checked

    return train(checked(settings))


if __name__ == "__main__":
    sys.exit(run(TrainSettings, main))
