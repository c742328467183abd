"""Files of released judges, from the user's own copy -> a rubric in their words, and where each word stands."""

from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.toml_text import toml_text

__all__ = ["ReleasedWords", "toml_text"]
