"""A selection's record -> the card of an exported data set: what is in it, why, and what is not known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from iqa_core.errors import listed

READ_WITH = {
    "webdataset": 'webdataset.WebDataset("*.tar")',
    "imagefolder": 'datasets.load_dataset("<this folder>")',
    "parquet": 'datasets.load_dataset("parquet", data_files="*.parquet")',
    "list": 'pandas.read_parquet("selected.parquet")',
    "coco": 'pycocotools.coco.COCO("annotations.json")',
    "label-studio": "Import of a Label Studio project whose labelling interface is label_config.xml",
}


def card(format: str, record: Mapping[str, Any], images: int, missing: int, altered: Sequence[str] = ()) -> str:
    """Markdown. record: selection.json; altered: what is not in it as it was, a sentence each."""
    rejected = [f"| {reason} | {count:,} |" for reason, count in record["dropped_by_reason"].items()]
    scores = [f"- `{table['uri']}`, fingerprint `{table['fingerprint']}`" for table in record["scores"]]
    unlike = [
        f"`{name}` from {scale['worst']:g} (worst) to {scale['best']:g} (best)"
        for name, scale in record.get("scales", {}).items()
    ]
    ranges = f"; 1 is worst, 5 is best{', unless said otherwise: ' if unlike else ''}{listed(unlike)}."
    left = f"\n{missing:,} originals were moved, deleted or changed since they were scored, and are not in it.\n"
    return "\n".join(
        [
            "# Selected images",
            "",
            f"{images:,} of {record['images']:,} images, in the form `{format}`; bytes are those of the originals.",
            left if missing else "",
            f"Read it with `{READ_WITH[format]}`." if images else "It is empty: nothing was selected.",
            "",
            *(["Not as in the score table:", "", *(f"- {sentence}" for sentence in altered), ""] if altered else []),
            "## Scores",
            "",
            *scores,
            "",
            f"Dimensions: {listed([f'`{name}`' for name in record['dimensions']])}{ranges}",
            "",
            "## Policy",
            "",
            f"Digest `{record['policy_digest']}`.",
            "",
            "```json",
            json.dumps(record["policy"], indent=2, ensure_ascii=False),
            "```",
            "",
            "| dropped by | images |",
            "|---|---|",
            *rejected,
            "",
            "## Licence",
            "",
            "Whoever made or collected the images decides what may be done with them. Nothing is known of that here;",
            "say it in this place before you pass the data set on.",
            "",
        ]
    )
