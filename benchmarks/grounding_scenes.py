"""How often the worst cell is the one that was spoilt, by the demo assessor, beside what needs no model and a probe.

Scenes that are clean but for one flaw, of a kind in turn and of strength .3 to 1, in a random cell of 2 x 2 or 3 x 3.
`hits` asks the dimension that the flaw belongs to, which a user does not know; `unknown` has ways that need no word of
it, which were chosen on other scenes than these. The probe says what visual tokens know: a ridge regression of the
spoilt share of each token's square, fitted to 1,200 scenes.

Shape suffixes: N images, T visual tokens, D their width, C cells of a grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.agreement.measures import wilson
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.protocol import Assessor
from iqa_core.demo.base import see
from iqa_core.demo.blueprint import make_image_processor
from iqa_core.demo.flaws import KINDS, LIGHTING_KINDS, FlawedScene, cell, make_flawed_scene
from iqa_core.demo.scenes import make_scene
from iqa_core.grounding.calibration import Calibration
from iqa_core.grounding.locating import Located, locate
from iqa_core.grounding.sharpness import sharpest_cell

TEST, CALIBRATION, CONTROL, PROBE = (1_000_022 + 1_000_000 * number for number in range(3, 7))
"""Seeds, on none of which anything was trained or chosen; that of the probe is for fitting it."""
MIN_STRENGTH = 0.3
CLEAN = 300
"""Scenes without a flaw that calibrate, and as many others whose false alarms are counted."""
MIRRORED = 300
PROBE_SCENES, PENALTIES = 1_200, (1.0, 10.0, 100.0, 1_000.0)
FALSE_ALARMS = 0.05
TARGET = {2: 0.62, 3: 0.33}
NAMES = ("lighting", "distortion")

Cell = tuple[int, int]


@dataclass(frozen=True)
class Spoilt:
    """A scene with a flaw in one cell."""

    made: FlawedScene
    cell: Cell

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self.made.scene.pixels_HWC

    @property
    def name(self) -> str:
        """The dimension that the flaw belongs to."""
        return "lighting" if self.made.flaw.kind in LIGHTING_KINDS else "distortion"


@dataclass(frozen=True)
class Answer:
    """What was found in a scene with a flaw."""

    spoilt: Spoilt
    found: Mapping[str, Located]

    def is_hit(self, place: Cell | None) -> bool:
        return place == self.spoilt.cell


def spoilt_scenes(seed: int, count: int, side: int) -> Iterator[Spoilt]:
    rng, index, found = np.random.default_rng(side), 0, 0
    while found < count:
        row, column = (int(part) for part in rng.integers(side, size=2))
        made = make_flawed_scene(seed, index, region=cell(row, column, side), kind=KINDS[found % len(KINDS)])
        index += 1
        is_clean_elsewhere = not made.spoilt_HW2[~made.mask_HW][:, 0].any()
        if is_clean_elsewhere and made.flaw.strength >= MIN_STRENGTH:
            found += 1
            yield Spoilt(made, (row, column))


def clean_scenes(seed: int, count: int) -> Iterator[NDArray[np.uint8]]:
    return (make_scene(seed, index, intact=True).pixels_HWC for index in range(count))


def located(assessor: Assessor, pixels_HWC: NDArray[np.uint8], side: int) -> dict[str, Located]:
    found = locate(assessor, np.ascontiguousarray(pixels_HWC), NAMES, cells=side)
    assert isinstance(found, dict)
    return found


def largest(values_RC: NDArray[np.floating]) -> Cell:
    return divmod(int(values_RC.argmax()), len(values_RC))


def unknown(found: Mapping[str, Located], calibration: Calibration) -> dict[str, Cell | None]:
    """The worst cell by each way that needs no word of the flaw's dimension."""
    fell = max(found.values(), key=lambda one: one.falls.max())
    below = {name: calibration.means[name] - one.cell_scores for name, one in found.items()}
    z = {name: -calibration.z(name, one) for name, one in found.items()}
    odd = [one - np.median(one) for one in z.values()]
    return {
        **{name: one.cell for name, one in found.items()},
        "larger fall": fell.cell,
        "sum of falls": largest(np.sum([one.falls for one in found.values()], axis=0)),
        "sum below the means": largest(np.sum([*below.values()], axis=0)),
        "sum of z": largest(np.sum([*z.values()], axis=0)),
        "lowest z below its median": largest(np.max(odd, axis=0)),
    }


def measure_scenes(count: int, side: int, rubric: str | None) -> dict[str, Any]:
    """All rates of one grid. rubric: that the demo is asked along; None is its own."""
    assessor = load_assessor("demo", rubric, threads=1)
    clean = [located(assessor, pixels, side) for pixels in clean_scenes(CALIBRATION, CLEAN)]
    control = [located(assessor, pixels, side) for pixels in clean_scenes(CONTROL, CLEAN)]
    calibration = Calibration.of(clean)
    answers = [Answer(spoilt, located(assessor, spoilt.pixels, side)) for spoilt in spoilt_scenes(TEST, count, side)]
    hits = [answer.is_hit(answer.found[answer.spoilt.name].cell) for answer in answers]
    others = defaultdict[str, list[bool]](list)
    for answer in answers:
        for way, place in unknown(answer.found, calibration).items():
            others[way].append(answer.is_hit(place))
        name = answer.spoilt.name
        others["dimension known, z"].append(answer.is_hit(largest(-calibration.z(name, answer.found[name]))))
    sharpest = [answer.is_hit(sharpest_cell(answer.spoilt.pixels, side)) for answer in answers]
    kinds = [answer.spoilt.made.flaw.kind for answer in answers]
    thirds = [f"from {third(answer.spoilt.made.flaw.strength):.2f}" for answer in answers]
    probed = probe(side, [answer.spoilt for answer in answers])
    return {
        "scenes": count,
        **rate("hits", hits),
        "asked": TARGET[side],
        "unknown": {way: rate("hits", own) for way, own in others.items()},
        "chance": 1 / side**2,
        "middle": float(np.mean([a.spoilt.cell == (side // 2, side // 2) for a in answers])) if side % 2 else None,
        **rate("laplacian", sharpest),
        **rate("probe", probed),
        "mirror": np.mean([is_mirrored(assessor, answer, side) for answer in answers[:MIRRORED]]),
        "by_kind": grouped(kinds, hits),
        "by_strength": grouped(thirds, hits),
        "laplacian_by_kind": grouped(kinds, sharpest),
        "probe_by_kind": grouped(kinds, probed),
        "detection": {name: detection(name, clean, control, answers) for name in NAMES},
        "largest_difference_of_whole": max(difference(assessor, answer) for answer in answers[:100]),
    }


def rate(name: str, hits: Sequence[bool]) -> dict[str, Any]:
    return {name: round(float(np.mean(hits)), 4), f"{name}_interval": wilson(sum(hits), len(hits))}


def grouped(groups: Sequence[str], hits: Sequence[bool]) -> dict[str, tuple[float, float]]:
    """Group -> share of hits, and the lower end of its 95 % interval."""
    own = {group: [hit for one, hit in zip(groups, hits, strict=True) if one == group] for group in sorted({*groups})}
    return {group: (float(np.mean(found)), wilson(sum(found), len(found))[0]) for group, found in own.items()}


def third(strength: float) -> float:
    """Where the strength's third of the range from MIN_STRENGTH to 1 begins."""
    width = (1 - MIN_STRENGTH) / 3
    return MIN_STRENGTH + width * min(2, int((strength - MIN_STRENGTH) / width))


def is_mirrored(assessor: Assessor, answer: Answer, side: int) -> bool:
    """Whether the mirrored scene's worst cell is the mirror image of the scene's."""
    name = answer.spoilt.name
    here, there = (found[name].cell for found in (answer.found, located(assessor, answer.spoilt.pixels[:, ::-1], side)))
    return here is not None and there == (here[0], side - 1 - here[1])


def detection(
    name: str,
    clean: Sequence[Mapping[str, Located]],
    control: Sequence[Mapping[str, Located]],
    answers: Sequence[Answer],
) -> dict[str, float]:
    """The fall that FALSE_ALARMS of the calibrating scenes exceed; who exceeds it of clean ones and of spoilt ones."""
    fall = float(np.quantile([found[name].falls.max() for found in clean], 1 - FALSE_ALARMS))
    own = [answer.found for answer in answers if answer.spoilt.name == name]
    false_alarms, noticed = (
        float(np.mean([found[name].falls.max() > fall for found in some])) for some in (control, own)
    )
    return {"fall": fall, "false_alarms": false_alarms, "noticed": noticed}


def difference(assessor: Assessor, answer: Answer) -> float:
    """Of the whole image's score from the ordinary one."""
    [result] = assess_images(assessor, [answer.spoilt.pixels])
    name = answer.spoilt.name
    return abs(answer.found[name].score - float(result.scores_K[assessor.rubric.names.index(name)]))  # type: ignore[union-attr]


def probe(side: int, tested: Sequence[Spoilt]) -> list[bool]:
    """Whether the cell with the largest spoilt share by a ridge regression on visual tokens is the spoilt one."""
    model = load_model(materialise("demo"), "float32", "cpu", 1)
    training = [*spoilt_scenes(PROBE, PROBE_SCENES, side)]
    seen_NTD = tokens(model, training)
    spoilt_NT = np.stack([shares(one.made.mask_HW, seen_NTD.shape[1]) for one in training])
    held_out = PROBE_SCENES // 6
    scores = []
    for penalty in PENALTIES:
        weights = ridge(seen_NTD[:-held_out], spoilt_NT[:-held_out], penalty)
        scores.append(np.mean(probed(weights, seen_NTD[-held_out:], training[-held_out:], side)))
    weights = ridge(seen_NTD, spoilt_NT, PENALTIES[int(np.argmax(scores))])
    return probed(weights, tokens(model, tested), tested, side)


def tokens(model: Any, some: Sequence[Spoilt], at_once: int = 50) -> NDArray[np.float64]:
    """Visual tokens (N, T, D), and a 1 for each token's place behind them: what a place shows is not the same."""
    processor, parts = make_image_processor(), []
    with torch.inference_mode():
        for begin in range(0, len(some), at_once):
            images = np.stack([one.pixels for one in some[begin : begin + at_once]])
            parts.append(see(model, processor, torch.from_numpy(images)).numpy())
    seen_NTD = np.concatenate(parts).astype(np.float64)
    places = np.broadcast_to(np.eye(seen_NTD.shape[1]), (len(seen_NTD), seen_NTD.shape[1], seen_NTD.shape[1]))
    return np.concatenate([seen_NTD, places], axis=-1)


def shares(mask_HW: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Of each token's square the share that is spoilt (T,)."""
    side = int(count**0.5)
    blocks = mask_HW.reshape(side, len(mask_HW) // side, side, -1)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel())


def ridge(seen_NTD: NDArray[np.float64], spoilt_NT: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    features = seen_NTD.reshape(-1, seen_NTD.shape[-1])
    products = features.T @ features + penalty * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(products, features.T @ spoilt_NT.ravel()), dtype=np.float64)


def probed(
    weights_D: NDArray[np.float64], seen_NTD: NDArray[np.float64], scenes: Sequence[Spoilt], side: int
) -> list[bool]:
    found_NC = seen_NTD @ weights_D @ overlaps(side, seen_NTD.shape[1]).T
    return [divmod(int(best), side) == one.cell for best, one in zip(found_NC.argmax(axis=1), scenes, strict=True)]


def overlaps(side: int, count: int) -> NDArray[np.float64]:
    """Of each cell the share that lies in each token's square (C, T)."""
    along = int(count**0.5)
    begins_C, begins_T = np.arange(side)[:, None] / side, np.arange(along)[None] / along
    ends = np.minimum(begins_C + 1 / side, begins_T + 1 / along)
    shared = side * np.clip(ends - np.maximum(begins_C, begins_T), 0, None)
    return np.kron(shared, shared)
