"""Settings -> what is held against one another beside scores and opinions, checked before anything is scored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from iqa_core.agreement.rouge import require_words
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.opinions.chains import Chains, load_chains
from iqa_core.opinions.opinion import Opinions
from iqa_core.reasons.meaning import TextsModel
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written.rubric import Opposites
from iqa_core.slots import TextLimits
from iqa_core.tables.scores.columns import REWARD
from jobs.evaluation.judged import Judge
from jobs.evaluation.judges import other_judge
from jobs.evaluation.said import PARTS, has_captions, parts_of
from jobs.evaluation.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class ReasonsJob:
    """What does not change during an evaluation."""

    matrix: bool = False
    chains: Chains = field(default_factory=dict)
    """Of the images that opinions are about."""
    texts_model: TextsModel | None = None
    opposites: Sequence[Opposites] = ()
    """Of the first assessor's rubric."""
    alone: Mapping[str, tuple[Opinions, Judge]] = field(default_factory=dict)
    """Attribute -> the opinions about it, and who is asked for it alone."""


def reasons_job(
    settings: EvaluateSettings, opinions: Opinions, spec: AssessorSpec | None, limits: TextLimits
) -> ReasonsJob:
    """spec: of the first assessor; None where a score table is judged. limits: those of the opinions' texts.

    Raises CallerError.
    """
    _require_captions(settings, spec)
    _require_written(settings, spec)
    if settings.texts_model is not None and not settings.chains:
        raise CallerError("--texts-model compares texts with people's: give --chains as well, or leave it out")
    rubric = spec.rubric if spec is not None and isinstance(spec.rubric, WrittenRubric) else None
    return ReasonsJob(
        settings.matrix,
        _chains(settings, opinions, frozenset(PARTS) if rubric is None else parts_of(rubric)),
        None if settings.texts_model is None else TextsModel(settings.texts_model),
        () if rubric is None else rubric.opposites,
        _alone(settings, opinions, limits),
    )


def _require_captions(settings: EvaluateSettings, spec: AssessorSpec | None) -> None:
    if not settings.caption_only:
        return
    if spec is None:
        raise CallerError("--caption-only asks the model again, which --scores cannot be: give --assessor in its place")
    if not has_captions(spec.rubric):
        raise CallerError(
            f"--caption-only: answers by {spec.rubric.id} have no caption, or its question needs texts; name a "
            '--rubric without slots whose grammar is "perception", such as perception-v1'
        )


def _require_written(settings: EvaluateSettings, spec: AssessorSpec | None) -> None:
    flags = [flag for flag, given in (("--chains", settings.chains), ("--sheet", settings.sheet)) if given]
    is_written = spec is None or (isinstance(spec.rubric, WrittenRubric) and not spec.rubric.slots)
    if flags and not is_written:
        assert spec is not None
        raise CallerError(
            f"{flags[0]}: {spec.rubric.id} is no written rubric, or has slots, so that there is not one text about an "
            "image; name another --rubric"
        )


def _chains(settings: EvaluateSettings, opinions: Opinions, parts: Collection[str]) -> Chains:
    """Those about images of the opinions. parts: of PARTS that the model writes, or may have written.

    Raises CallerError where there is none with such a part.
    """
    if not settings.chains:
        return {}
    images = {path.absolute(): path for path in opinions.images}
    everything = load_chains(settings.chains)
    found = {images[path.absolute()]: own for path, own in everything.items() if path.absolute() in images}
    if not found:
        raise CallerError(
            f"--chains: none of their {len(everything):,} images is one of the annotations', such as "
            f"{next(iter(everything))} beside {opinions.images[0]}; ?images=FOLDER says where they lie"
        )
    texts = [(chain, chain.text(part)) for own in found.values() for chain in own for part in sorted(parts)]
    require_words(((chain.image, text) for chain, text in texts if text is not None), "compare scores alone")
    if all(text is None for _, text in texts):
        raise CallerError(
            f"--chains: of captions and reasonings, the model writes {' and '.join(sorted(parts)) or 'none'}, and no "
            "person wrote that about these images; name another --rubric, or leave --chains out"
        )
    print(f"chains      people's of {len(found):,} images, of {len(everything):,} in the files", flush=True)
    return found


def _alone(settings: EvaluateSettings, opinions: Opinions, limits: TextLimits) -> Mapping[str, tuple[Opinions, Judge]]:
    found = {}
    attributes = [name for name in opinions.dimensions if name != REWARD]
    if settings.alone and not settings.matrix:
        raise CallerError("--alone is a row of the matrix: give --matrix as well, or leave it out")
    if settings.matrix and len(attributes) < 2:
        raise CallerError(f"--matrix: the opinions are about {', '.join(attributes)} alone, and it takes two or more")
    for text in settings.alone:
        name, mark, judge = text.partition("=")
        if not mark or name not in attributes or name in found:
            raise CallerError(
                f"--alone {text}: it is ATTRIBUTE=<checkpoint>?rubric=<rubric>, or ATTRIBUTE=scores:<output>, once for "
                f"an attribute of the opinions: {', '.join(attributes)}"
            )
        about = Opinions(tuple(row for row in opinions.rows if row.dimension == name), {})
        found[name] = about, other_judge(judge, settings, about, limits)
    return found
