"""Which questions are asked of an image: TOML files, read and checked."""

from iqa_core.rubrics.rubric import Rubric, RubricDimension, load_rubric, rubric_names

__all__ = ["Rubric", "RubricDimension", "load_rubric", "rubric_names"]
