"""Which questions are asked of an image: TOML files or annotation files, read and checked."""

from iqa_core.rubrics.load import load_rubric, rubric_names
from iqa_core.rubrics.rubric import Rubric, RubricDimension

__all__ = ["Rubric", "RubricDimension", "load_rubric", "rubric_names"]
