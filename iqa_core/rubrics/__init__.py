"""Which questions are asked of an image: TOML files or annotation files, read and checked."""

from iqa_core.rubrics.base import BaseRubric
from iqa_core.rubrics.load import AnyRubric, closed_set, load_any_rubric, load_rubric, rubric_names, written_names
from iqa_core.rubrics.rubric import Rubric, RubricDimension
from iqa_core.rubrics.written import WrittenRubric

__all__ = [
    "AnyRubric",
    "BaseRubric",
    "Rubric",
    "RubricDimension",
    "WrittenRubric",
    "closed_set",
    "load_any_rubric",
    "load_rubric",
    "rubric_names",
    "written_names",
]
