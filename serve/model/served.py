"""Settings -> what an endpoint serves: one checkpoint, under one rubric or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_core.assessor.load import describe, rubrics_on_one_model
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.records import Preparer
from iqa_core.rubrics import AnyRubric
from serve.errors import Refusal
from serve.model.results import Model
from serve.settings import MAX_TEXT, ServeSettings


@dataclass(frozen=True, slots=True)
class Served:
    """A model for each rubric, as far as an ingress needs to know it; all have their weights in common."""

    models: tuple[Model, ...]
    """The first answers who names no rubric."""

    @classmethod
    def of(cls, specs: Sequence[AssessorSpec], settings: ServeSettings) -> Served:
        """The models of these specs.

        Raises CallerError when fusion weights do not fit, or the slots of a rubric take more than is read.
        """
        return cls._of(specs, settings, _fusion([spec.rubric.id for spec in specs], settings.fusion))

    @classmethod
    def _of(cls, specs: Sequence[AssessorSpec], settings: ServeSettings, fusion: Mapping[str, Path]) -> Served:
        for spec in specs:
            _require_slots_fit(spec.rubric, settings.slot_chars)
        return cls(tuple(Model.of(spec, fusion.get(spec.rubric.id)) for spec in specs))

    def taken_over(self, specs: Sequence[AssessorSpec], settings: ServeSettings) -> Served:
        """The models of another application's specs, to which requests of this one get while it takes over.

        settings: of this one; a file of weights among several rubrics is that of this one's first.
        Raises CallerError as `of` does.
        """
        if len(specs) > 1 and isinstance(settings.fusion, Path):
            return self._of(specs, settings, {self.rubrics[0].id: settings.fusion})
        return self.of(specs, settings)

    def model(self, rubric: str | None) -> Model:
        """The model of a rubric, by its id; None is the first. Raises Refusal (422) where there is no such rubric."""
        for model in self.models:
            if rubric in (None, model.spec.rubric.id):
                return model
        raise Refusal(422, f"rubric: this endpoint serves {', '.join(one.id for one in self.rubrics)}")

    @property
    def rubrics(self) -> tuple[AnyRubric, ...]:
        """The rubrics, in order."""
        return tuple(model.spec.rubric for model in self.models)

    @property
    def ids(self) -> frozenset[str]:
        """The rubrics' ids."""
        return frozenset(rubric.id for rubric in self.rubrics)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of all, in order: what is equal in them is answered alike."""
        return tuple(model.fingerprint for model in self.models)

    @property
    def preparer(self) -> Preparer:
        """What prepares images for all: rubrics differ in the tokens of their questions, never in an image's pixels."""
        return self.models[0].spec.preparer


def describe_all(settings: ServeSettings) -> tuple[AssessorSpec, ...]:
    """The described assessor of each rubric.

    Raises CallerError as `describe` does, where two rubrics have one id or one of several is written, and for weights
    that are of none of them.
    """
    names = settings.rubrics or (settings.rubric,)
    specs = tuple(describe(settings.assessor, name, settings.limits) for name in names)
    for id, times in Counter(spec.rubric.id for spec in specs).items():
        if times > 1:
            raise CallerError(f"rubrics: {times} of them have the id {id}, by which requests choose; give each its own")
    ids = [spec.rubric.id for spec in specs]
    if isinstance(settings.fusion, dict) and (unknown := sorted(settings.fusion.keys() - set(ids))):
        raise CallerError(f"fusion: {unknown[0]} is none of the rubrics, {', '.join(ids)}")
    if len(specs) > 1:
        rubrics_on_one_model(specs)
    return specs


def _require_slots_fit(rubric: AnyRubric, slot_chars: int) -> None:
    if len(rubric.slots) * slot_chars > MAX_TEXT:
        raise CallerError(
            f"slot_chars: {slot_chars:,} for each of {len(rubric.slots)} slots of rubric {rubric.id}; texts of an "
            f"image are read up to {MAX_TEXT:,} characters, so give {MAX_TEXT // len(rubric.slots):,} or less"
        )


def _fusion(ids: Sequence[str], given: Path | dict[str, Path] | None) -> dict[str, Path]:
    """Rubric's id -> file of its weights; of other rubrics too, as while another application takes over.

    Raises CallerError where it is not known whose the one file is.
    """
    if given is None:
        return {}
    if isinstance(given, Path):
        if len(ids) > 1:
            raise CallerError(
                f"fusion: say whose weights {given} are, as in {{{ids[0]}: {given}}}: there are {len(ids)}"
            )
        return {ids[0]: given}
    return given
