"""Rubrics of unlike ranges: two answers, ten to one where less is better, five levels, and a group of statements."""

from __future__ import annotations

import tomllib

from iqa_core.rubrics import Rubric

TRAINABLE_TOML = """
id = "unlike"
domain = "Any picture."
prompt_version = 1
description = "Ranges that differ."
answer_prefix = "It is"
levels = ["bad", "poor", "fair", "good", "excellent"]

[[dimensions]]
name = "shown"
query = "Is it there?"
answers = { No = 0, Yes = 1 }
answer_prefix = ""

[[dimensions]]
name = "noise"
query = "How noisy is it? A much, B a little, C not at all."
answers = { A = 10, B = 5, C = 1 }
worst = 10
best = 1

[[dimensions]]
name = "layout"
query = "How is the layout?"
"""
"""Without the group: opinions can train it."""

TOML = f"""{TRAINABLE_TOML}
[checklist]
query = "Is it true? {{statement}}"
answers = {{ No = 0, Yes = 1 }}

[[statements]]
name = "dog"
text = "There is a dog."
group = "things"

[[statements]]
name = "cat"
text = "There is a cat."
group = "things"
"""

RUBRIC = Rubric.model_validate(tomllib.loads(TOML))
TRAINABLE = Rubric.model_validate(tomllib.loads(TRAINABLE_TOML))
NAMES = RUBRIC.names
"""shown, noise, layout, things."""

ASKING_TOML = """
id = "asking"
domain = "Any picture."
prompt_version = 1
description = "A prompt in a dimension, a style in statements, and neither."
slots = ["prompt", "style"]
levels = ["bad", "poor", "fair", "good", "excellent"]
answer_prefix = "It is"

[[dimensions]]
name = "faithful"
query = 'Does the picture show "{prompt}"? Say Yes or No.'
answers = { No = 0, Yes = 1 }
answer_prefix = ""

[[dimensions]]
name = "layout"
query = "How is the layout?"

[checklist]
query = 'In the style "{style}": {statement} Is it true?'
answers = { No = 0, Yes = 1 }
answer_prefix = ""

[[statements]]
name = "dog"
text = "There is a dog."
group = "things"

[[statements]]
name = "cat"
text = "There is a cat."
group = "things"
weight = 2.0
"""
"""With slots and a checklist; its columns are faithful, layout and things."""
ASKING = Rubric.model_validate(tomllib.loads(ASKING_TOML))
