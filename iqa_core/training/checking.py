"""Samples -> those that can be trained on, and the number left out for each reason; checked before training starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from iqa_core.assessor.prompts.plain_text import TextRefused
from iqa_core.errors import CallerError
from iqa_core.records import ImageHeader, Rejection
from iqa_core.training.sample_encoder import SampleEncoder, read_image
from iqa_core.training.samples import TrainingSample

READERS = 8
"""Threads that decode images: Pillow releases the GIL."""
TOO_LONG = "too long"
SHRUNK = "shrunk to fit"
REFUSED = "a text that cannot stand in the question"
"""Reasons in `Usable.counts`, beside those of images."""
SHOWN = 3
"""Number of unreadable images that an error names."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Samples that can be trained on."""

    samples: tuple[TrainingSample, ...]
    """In order, each with its number of tokens."""
    counts: Mapping[str, int]
    """Reason -> samples that were left out, or (`shrunk to fit`) changed."""


def usable(
    samples: Sequence[TrainingSample],
    encoder: SampleEncoder,
    *,
    max_tokens: int | None = None,
    too_long: Literal["drop", "shrink"] = "drop",
    skip_unreadable: bool = False,
) -> Usable:
    """The samples that can be trained on; every image is decoded once, every text encoded once.

    max_tokens: bound on a sample's tokens; too_long: whether a longer one is dropped, or its image shrunk to fit.
    Raises CallerError on images that cannot be read, unless skip_unreadable; when the tokenizer merges an answer with
    its question; and when no sample is left.
    """
    headers = _headers(list(dict.fromkeys(sample.image for sample in samples)), encoder)
    faults = {path: found for path, found in headers.items() if isinstance(found, Rejection)}
    if faults and not skip_unreadable:
        raise CallerError(_complaint(faults))
    counts: Counter[str] = Counter()
    kept = []
    for sample in samples:
        header = headers[sample.image]
        if isinstance(header, Rejection):
            counts[f"image {header.reason}"] += 1
            continue
        try:
            fitting = _fitting(sample, header, encoder, max_tokens, too_long)
        except TextRefused:
            counts[REFUSED] += 1
            continue
        if fitting is None:
            counts[TOO_LONG] += 1
            continue
        counts[SHRUNK] += fitting.max_pixels is not None
        kept.append(fitting)
    if not kept:
        raise CallerError(f"no sample is left of {len(samples)}: {dict(+counts)}")
    return Usable(tuple(kept), dict(+counts))


def _headers(paths: Sequence[Path], encoder: SampleEncoder) -> dict[Path, ImageHeader | Rejection]:
    def read(path: Path) -> ImageHeader | Rejection:
        found = read_image(path, encoder.preparer)
        return found if isinstance(found, Rejection) else found.header

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(paths, pool.map(read, paths), strict=True))


def _complaint(faults: Mapping[Path, Rejection]) -> str:
    shown = "; ".join(f"{path}: {found.reason} ({found.detail})" for path, found in list(faults.items())[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"images cannot be read: {shown}{more}. Mend the files, or leave them out with --skip-unreadable"


def _fitting(
    sample: TrainingSample,
    header: ImageHeader,
    encoder: SampleEncoder,
    max_tokens: int | None,
    too_long: Literal["drop", "shrink"],
) -> TrainingSample | None:
    """The sample with its number of tokens, its image shrunk if need be; None when it cannot fit."""
    tokens = encoder.tokens(sample, header)
    if max_tokens is None or tokens <= max_tokens:
        return replace(sample, tokens=tokens)
    if too_long == "drop":
        return None
    height, width = encoder.preparer.picture_size(header)
    visual = tokens - encoder.text_tokens(sample) + 1
    room = max_tokens - (tokens - visual)
    pixels = math.floor(height * width * room / visual)
    if pixels < getattr(encoder.preparer, "min_pixels", 1):
        return None
    smaller = replace(sample, max_pixels=pixels)
    tokens = encoder.tokens(smaller, header)
    return replace(smaller, tokens=tokens) if tokens <= max_tokens else None
