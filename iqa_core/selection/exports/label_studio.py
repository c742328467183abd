"""Images with marked boxes -> tasks of Label Studio with predictions, and the labelling interface that shows them.

Its rectangles are in percent of the sides of the upright image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from iqa_core.selection.exports.marked import MarkedImage, MarkedRegion


def files(images: Iterable[MarkedImage], dimensions: Sequence[str], fingerprint: str) -> dict[str, bytes]:
    """Name of a file -> its bytes. dimensions: that were asked about. fingerprint: of what gave the scores."""
    tasks = [_task(image, fingerprint) for image in images]
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in dimensions)
    interface = (
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n"
    )
    return {
        "tasks.json": json.dumps(tasks, ensure_ascii=False, allow_nan=False).encode(),
        "label_config.xml": interface.encode(),
    }


def _task(image: MarkedImage, fingerprint: str) -> dict[str, Any]:
    results = [_result(region, f"{number}", image) for number, region in enumerate(image.regions)]
    lies_at = image.source if image.is_file else image.key
    return {
        "data": {"image": lies_at, "key": image.key, "source": image.source, "scores": image.scores},
        "predictions": [{"model_version": fingerprint, "result": results}],
    }


def _result(region: MarkedRegion, id: str, image: MarkedImage) -> dict[str, Any]:
    x, y, width, height = region.box.scaled(100 / image.width, 100 / image.height)
    rectangle = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "id": id,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": region.score,
        "value": {**rectangle, "rectanglelabels": [region.dimension]},
        "meta": {"method": region.method, "label": region.label, "box_id": region.box_id},
    }
