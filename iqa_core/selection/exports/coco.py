"""Images with marked boxes -> the annotations of COCO, one category for each dimension."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from iqa_core.selection.exports.marked import MarkedImage, MarkedRegion


def files(images: Iterable[MarkedImage], dimensions: Sequence[str], fingerprint: str) -> dict[str, bytes]:
    """Name of a file -> its bytes. dimensions: that were asked about; ids count from 1.

    fingerprint: of what gave the scores.
    """
    categories = {name: number for number, name in enumerate(dimensions, 1)}
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id, image in enumerate(images, 1):
        about = {"width": image.width, "height": image.height, "source": image.source, "scores": image.scores}
        listed.append({"id": id, "file_name": image.key, **about})
        for region in image.regions:
            own = {"id": len(annotations) + 1, "image_id": id, "category_id": categories[region.dimension]}
            annotations.append({**own, **_annotation(region, image)})
    content = {
        "info": {"description": "where images are bad", "coordinates": "upright", "fingerprint": fingerprint},
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": id, "name": name, "supercategory": "quality"} for name, id in categories.items()],
    }
    return {"annotations.json": json.dumps(content, ensure_ascii=False, allow_nan=False).encode()}


def _annotation(region: MarkedRegion, image: MarkedImage) -> dict[str, Any]:
    left, top, right, bottom = region.box.corners
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    mask = {"size": [image.height, image.width], "counts": region.counts}
    return {
        "bbox": [*region.box],
        "area": region.area,
        "iscrowd": 0,
        "segmentation": outline if region.counts is None else mask,
        "score": region.score,
        "attributes": {"method": region.method, "label": region.label, "box_id": region.box_id},
    }
