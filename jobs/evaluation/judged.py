"""Opinions -> the scores that stand against them: from an assessor in this process, or out of a score table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import assess_images
from iqa_core.assessor.load import fingerprint, load
from iqa_core.assessor.protocol import Assessor, AssessorSpec
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import CallerError, listed
from iqa_core.fusion import FusionWeights, fuse
from iqa_core.opinions.opinion import Opinion, Opinions, Texts
from iqa_core.opinions.terms import Terms
from iqa_core.questions import LEVELS, ColumnScale, own_scales
from iqa_core.records import RATING, Assessment, Reason, Rejection, ScoreRange
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.slots import TextLimits, columns_of
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute, is_local, local_path
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import REWARD, dimensions_of
from iqa_core.tables.scores.score_table import score_ledger
from iqa_core.written.columns import CAPTION, REASONING
from jobs.evaluation.said import Said, caption_reader, has_captions, rated_captions, said_by_assessor, said_in_table
from jobs.progress import Progress

WINDOW = 64
"""Images in memory at once: enough for batches of like sizes, some hundred megabytes of photographs."""

NOT_IN_TABLE = "not in the score table"

STATEMENT_SCALE = ColumnScale(ScoreRange(0.0, 1.0), (0.0, 1.0))
"""That of a statement in a group."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One score per opinion, in the opinions' order."""

    about: Mapping[str, str]
    """Which assessor it was, for people and for the JSON."""
    scores_N: NDArray[np.float64]
    """1 (worst) to 5 (best), from whatever range the dimension has; NaN where there is none."""
    spreads_N: NDArray[np.float64]
    """Standard deviation of each distribution over answers, in the same units; NaN where there is no score, and for
    the reward."""
    failures: Mapping[str, int]
    """Rejection code -> opinions that have no score for it."""
    scales: Mapping[str, ColumnScale] = field(default_factory=dict)
    """Of the dimensions that are not five levels worth 1 to 5."""
    unparsed_N: NDArray[np.bool_] | None = None
    """Whether no written answer about the image could be parsed; None where answers are closed sets."""
    said: Mapping[Path, Said] = field(default_factory=dict)
    """Image -> what was written about it; of a rubric without slots, and of images that are not rejected."""
    caption_ratings: Mapping[Path, float] | None = None
    """Image -> what was read from its caption alone; None where that was not asked."""

    def scale_of(self, dimension: str) -> ColumnScale:
        """What the scores of a dimension could be as they came."""
        return self.scales.get(dimension, LEVELS)


Judge = Callable[[], Judged]
"""An evaluation whose settings were checked; calling it scores, which takes the time."""


def assessor_judge(
    opinions: Opinions, config: AssessorConfig, spec: AssessorSpec, limits: TextLimits, *, reads_captions: bool = False
) -> Judge:
    """Scores every image once with each of its texts, with all questions of the rubric; the reward weighs as it says.

    spec: of the assessor that `config` names. limits: those with which the opinions' texts were read.
    reads_captions: have the captions that it writes, if any, rated once more without their images.
    Raises CallerError before a model is loaded: an unknown dimension, an opinion without texts that the rubric has
    slots for, no image where the annotations say.
    """
    _require_dimensions(opinions, (*_places(spec.rubric), REWARD), f"rubric {spec.rubric.id}", "name another --rubric")
    given = min((frozenset(slot for slot, _ in row.texts) for row in opinions.rows), key=len)
    if lacking := sorted(set(spec.rubric.slots) - given):
        raise CallerError(
            f"rubric {spec.rubric.id} has slots ({', '.join(spec.rubric.slots)}), and opinions come without a text for "
            f"{{{lacking[0]}}}: the first of the assessors must have the slots of all"
        )
    if not any(path.is_file() for path in opinions.images):
        raise CallerError(
            f"none of {len(opinions.images):,} images is where the annotations say, {opinions.images[0]} to begin "
            "with; name the folder that they are relative to with ?images=FOLDER behind the annotations"
        )
    return partial(_judged_by_assessor, opinions, config, spec, limits, reads_captions and has_captions(spec.rubric))


def _judged_by_assessor(
    opinions: Opinions, config: AssessorConfig, spec: AssessorSpec, limits: TextLimits, reads_captions: bool
) -> Judged:
    about = {
        "assessor": config.checkpoint,
        "rubric": spec.rubric.id,
        "system": spec.system.describe(),
        "fingerprint": fingerprint(spec.fingerprint_parts),
    }
    for name, value in about.items():
        print(f"{name:<11} {value}", flush=True)
    assessor = load(spec, config)
    reader = caption_reader(assessor) if reads_captions else None
    slots = spec.rubric.slots
    results = dict(_assessed(assessor, list(dict.fromkeys(_asked(row, slots) for row in opinions.rows)), limits))
    places = _places(spec.rubric)
    weights = FusionWeights.of_columns(spec.rubric.columns)

    def score_of(opinion: Opinion) -> tuple[float, float] | str:
        result = results[_asked(opinion, slots)]
        if isinstance(result, Rejection):
            return str(result.reason)
        if opinion.dimension == REWARD:
            return float(fuse(result.scores_K[None], weights)[0]), math.nan
        column, member = places[opinion.dimension]
        if member is None:
            return float(result.scores_K[column]), float(result.stds_K[column])
        share = float(result.probs_K[column][member])
        return share, math.sqrt(share * (1 - share))

    is_written = isinstance(spec.rubric, WrittenRubric)
    scales = {name: STATEMENT_SCALE for name, (_, member) in places.items() if member is not None}
    judged = _judged(about, opinions.rows, score_of, own_scales(spec.rubric.columns) | scales, is_written)
    said = said_by_assessor(((path, result) for (path, _), result in results.items()), spec.rubric)
    return replace(judged, said=said, caption_ratings=None if reader is None else rated_captions(reader, said))


def _places(rubric: AnyRubric) -> dict[str, tuple[int, int | None]]:
    """Column -> its index, and statement of a group -> the group's index and its own index there."""
    places: dict[str, tuple[int, int | None]] = {column.name: (k, None) for k, column in enumerate(rubric.columns)}
    if isinstance(rubric, WrittenRubric):
        return places
    for k, column in enumerate(rubric.columns):
        for i, question in enumerate(column.questions if column.scale.is_group else ()):
            places.setdefault(rubric.questions[question].name, (k, i))
    return places


def _asked(opinion: Opinion, slots: Sequence[str]) -> tuple[Path, Texts]:
    """The image of an opinion, and those of its texts that a rubric has slots for."""
    return opinion.path, tuple(text for text in opinion.texts if text[0] in slots)


def table_terms(scores: str, storage_options: Mapping[str, Any], given: Sequence[str]) -> Terms:
    """What the plan of a score table says of opinions on its columns; texts count for the slots of given flags alone.

    An image that is there once needs no text to be found. Raises CallerError as `columns_of` does.
    """
    contract = Plan(Storage(storage_options), absolute(scores)).contract()
    slots = tuple(contract.slots.columns) if contract else ()
    columns, named = columns_of(given, slots, TextLimits()), {flag.partition("=")[0] for flag in given}
    return Terms(
        columns,
        contract.slots.limits if contract else TextLimits(),
        all_slots=tuple(slot for slot in slots if slot in named),
        ranges={name: contract.scale_of(name).range for name in contract.dimensions} if contract else {},
    )


def table_judge(opinions: Opinions, scores: str, storage_options: Mapping[str, Any]) -> Judge:
    """Looks every image up in the output of a scoring job.

    An image is found by its path if it is a loose file, else by its key, or by the end of its path if that is a key.
    Raises CallerError when there is no such table, it lacks a dimension, none of the images is in it, or one could be
    several.
    """
    table, about, contract = _read_table(opinions, absolute(scores), Storage(storage_options))
    rows = [_find(opinion, table) for opinion in opinions.rows]
    if not any(rows):
        raise CallerError(
            f"--scores {scores}: none of {len(opinions.images):,} images of the annotations is in it; its keys are "
            f"like {next(iter(table.by_key), 'none')}, and the annotations say {opinions.rows[0].image}"
        )
    found = dict(zip(opinions.rows, rows, strict=True))

    def score_of(opinion: Opinion) -> tuple[float, float] | str:
        row = found[opinion]
        if row is None:
            return NOT_IN_TABLE
        if row["reason"] is not None:
            return str(row["reason"])
        return row[opinion.dimension], row.get(f"{opinion.dimension}_std", math.nan)

    is_written = contract is not None and contract.written is not None
    scales = contract.scales if contract else {}

    def judge() -> Judged:
        judged = _judged(about, opinions.rows, score_of, scales, is_written)
        if not is_written or table.has_slots:
            return judged
        return replace(judged, said=said_in_table((opinion.path, row) for opinion, row in found.items()))

    return judge


def _judged(
    about: Mapping[str, str],
    rows: Sequence[Opinion],
    score_of: Callable[[Opinion], tuple[float, float] | str],
    scales: Mapping[str, ColumnScale],
    is_written: bool,
) -> Judged:
    """The scores brought to the opinions' scale, so that those of dimensions on other ranges can be put together."""
    scales = {name: scales[name] for name in dict.fromkeys(row.dimension for row in rows) if name in scales}
    ranges = {name: scale.range for name, scale in scales.items() if scale.range != RATING}
    found = [_rated(score_of(row), ranges.get(row.dimension)) for row in rows]
    values = [(math.nan, math.nan) if isinstance(one, str) else one for one in found]
    failures = Counter(one for one in found if isinstance(one, str))
    scores_N, spreads_N = np.asarray(values, dtype=np.float64).reshape(-1, 2).T
    shown = ", ".join(f"{name} from {ends.worst:g} to {ends.best:g}" for name, ends in ranges.items())
    about = {**about, "ranges": shown} if ranges else about
    unparsed_N = np.array([one == Reason.UNPARSABLE for one in found]) if is_written else None
    return Judged(about, scores_N, spreads_N, dict(failures.most_common()), scales, unparsed_N)


def _rated(found: tuple[float, float] | str, ends: ScoreRange | None) -> tuple[float, float] | str:
    """A score and its spread in a range, on 1 (worst) to 5 (best)."""
    if isinstance(found, str) or ends is None:
        return found
    score, spread = found
    return ends.rating(score), ends.points(spread)


def _require_dimensions(opinions: Opinions, known: Sequence[str], origin: str, way: str) -> None:
    """way: what helps where an opinion is about something else."""
    unknown = [name for name in opinions.dimensions if name not in known]
    if unknown:
        raise CallerError(
            f"the annotations are about {', '.join(unknown)}, but {origin} has {listed(known)}; choose with "
            f"--dimension, or {way}"
        )


def _way(contract: Contract | None) -> str:
    """What helps where a table lacks a dimension: it has no names of the statements in its groups."""
    groups = [name for name, scale in contract.scales.items() if scale.is_group] if contract else []
    if not groups:
        return "name another table"
    return (
        f"give the assessor and its --rubric in place of the table, which has the statements of {listed(groups)} as "
        "lists without names"
    )


def _assessed(
    assessor: Assessor, asked: Sequence[tuple[Path, Texts]], limits: TextLimits
) -> Iterator[tuple[tuple[Path, Texts], Assessment | Rejection]]:
    progress = Progress(len(asked), 0)
    for start in range(0, len(asked), WINDOW):
        window = asked[start : start + WINDOW]
        texts = [dict(own) for _, own in window] if assessor.rubric.slots else None
        results = assess_images(assessor, [path for path, _ in window], texts, limits)
        progress.add(len(results), sum(isinstance(result, Rejection) for result in results))
        yield from zip(window, results, strict=True)
    progress.close()
    print(progress.line(), flush=True)


@dataclass(frozen=True, slots=True)
class _Table:
    by_path: Mapping[Path, list[dict[str, Any]]]
    """Loose local files alone: a tar or Parquet file is the source of many images. One row of each, the last; all where
    the rubric has slots."""
    by_key: Mapping[str, list[dict[str, Any]]]
    by_name: Mapping[str, list[dict[str, Any]]]
    """Rows whose key has this last part."""
    has_slots: bool
    """Whether one file can have several rows that differ: with another text it is another image.

    A row has its texts, slot -> text, as "texts"; a rejection where it has none."""


def _read_table(opinions: Opinions, output: str, storage: Storage) -> tuple[_Table, dict[str, str], Contract | None]:
    contract, ledger = Plan(storage, output).contract(), score_ledger(storage, output)
    names = sorted(ledger.finished())
    if not names:
        raise CallerError(f"--scores {output} has no scores/*.parquet; give the --output of a scoring job")
    has_slots = contract is not None and bool(contract.slots.columns)
    by_path: dict[Path, list[dict[str, Any]]] = {}
    by_key: dict[str, list[dict[str, Any]]] = {}
    by_name: dict[str, list[dict[str, Any]]] = {}
    metadata: dict[str, Any] = {}
    scored = [f"{name}{end}" for name in opinions.dimensions for end in ("", "_std") if name + end != f"{REWARD}_std"]
    for _, rows in ledger.read_all(names):
        metadata = metadata_of(rows)
        known = (*dimensions_of(rows.column_names), REWARD)
        _require_dimensions(opinions, known, f"the score table {output}", _way(contract))
        asked = contract.slots.texts(rows) if contract else None
        texts = [name for name in (CAPTION, REASONING) if contract and contract.written]
        columns = rows.select(["key", "source", "offset", "row", "reason", *scored, *texts]).to_pylist()
        for row, own in zip(columns, asked or repeat({}), strict=False):
            row["texts"] = own
            by_key.setdefault(row["key"], []).append(row)
            by_name.setdefault(PurePosixPath(row["key"]).name, []).append(row)
            if row["offset"] is None and row["row"] is None and is_local(row["source"]):
                path = local_path(row["source"])
                by_path[path] = [*by_path[path], row] if has_slots and path in by_path else [row]
    about = {"scores": output, "rubric": str(metadata.get("rubric")), "fingerprint": str(metadata.get("fingerprint"))}
    return _Table(by_path, by_key, by_name, has_slots), about, contract


def _find(opinion: Opinion, table: _Table) -> dict[str, Any] | None:
    found = (
        table.by_path.get(opinion.path.absolute())
        or table.by_key.get(opinion.image)
        or [
            row
            for row in table.by_name.get(PurePosixPath(opinion.image).name, [])
            if _ends_alike(PurePosixPath(row["key"]).parts, PurePosixPath(opinion.image).parts)
        ]
    )
    if table.has_slots and opinion.texts:
        found = [row for row in found if _is_about(row["texts"], opinion.texts)]
    if len(found) > 1:
        places = ", ".join(f"{row['key']} in {row['source']}" for row in found[:2])
        hint = "; --slot slot=column of the annotations tells texts apart" if table.has_slots else ""
        raise CallerError(
            f"{opinion.image} of the annotations could be {len(found)} images of the table: {places}, …{hint}"
        )
    return found[0] if found else None


def _is_about(found: Mapping[str, str] | Rejection, texts: Texts) -> bool:
    """Whether a row was asked about with these texts, as far as its own rubric has slots for them."""
    return not isinstance(found, Rejection) and all(found.get(slot, text) == text for slot, text in texts)


def _ends_alike(key: tuple[str, ...], image: tuple[str, ...]) -> bool:
    """Whether the shorter path is the end of the longer one."""
    shared = min(len(key), len(image))
    return key[-shared:] == image[-shared:]
