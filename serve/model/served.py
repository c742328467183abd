"""Settings -> what an endpoint serves: one checkpoint, under one rubric or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_core.assessor.load import describe
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.records import Preparer
from iqa_core.rubrics import AnyRubric
from serve.errors import Refusal
from serve.model.results import Model
from serve.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Served:
    """A model for each rubric, as far as an ingress needs to know it; all have their weights in common."""

    models: tuple[Model, ...]
    """The first answers who names no rubric."""

    @classmethod
    def of(cls, specs: Sequence[AssessorSpec], settings: ServeSettings) -> Served:
        """The models of these specs. Raises CallerError when fusion weights do not fit."""
        fusion = _fusion([spec.rubric.id for spec in specs], settings.fusion)
        return cls(tuple(Model.of(spec, fusion.get(spec.rubric.id)) for spec in specs))

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
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of all, in order: what is equal in them is answered alike."""
        return tuple(model.fingerprint for model in self.models)

    @property
    def preparer(self) -> Preparer:
        """What prepares images for all: rubrics differ in the tokens of their questions, never in an image's pixels."""
        return self.models[0].spec.preparer


def describe_all(settings: ServeSettings) -> tuple[AssessorSpec, ...]:
    """The described assessor of each rubric.

    Raises CallerError as `describe` does, and where two rubrics have one id.
    """
    names = settings.rubrics or (settings.rubric,)
    specs = tuple(describe(settings.assessor, name, settings.limits) for name in names)
    for id, times in Counter(spec.rubric.id for spec in specs).items():
        if times > 1:
            raise CallerError(f"rubrics: {times} of them have the id {id}, by which requests choose; give each its own")
    return specs


def _fusion(ids: Sequence[str], given: Path | dict[str, Path] | None) -> dict[str, Path]:
    """Rubric's id -> file of its weights. Raises CallerError where it is not known which file is whose."""
    if given is None:
        return {}
    if isinstance(given, Path):
        if len(ids) > 1:
            raise CallerError(
                f"fusion: there are {len(ids)} rubrics; say whose weights these are: {{{ids[0]}: {given}}}"
            )
        return {ids[0]: given}
    if unknown := sorted(given.keys() - set(ids)):
        raise CallerError(f"fusion: {unknown[0]} is none of the rubrics, {', '.join(ids)}")
    return given
