"""Rubrics whose answers are written in words and numbers, and how a model writes them."""

from iqa_core.rubrics.written.decoding import Decoding
from iqa_core.rubrics.written.rubric import WrittenRubric

__all__ = ["Decoding", "WrittenRubric"]
