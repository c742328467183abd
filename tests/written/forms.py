"""A form of each grammar, as released models and the shipped rubrics have them."""

from __future__ import annotations

from iqa_core.records import ScoreRange
from iqa_core.written.form import Attribute, Form, Grammar

LABELS = {"sharpness": "Sharpness", "color": "Color", "noise": "Noise", "composition": "Composition"}
RATING_OF_FIVE = Attribute("quality", "rating")

ATTRIBUTES = Form(
    Grammar.ATTRIBUTES,
    (*(Attribute(name, label) for name, label in LABELS.items()), Attribute("quality", "Overall")),
    thought="think",
)
PERCEPTION = Form(Grammar.PERCEPTION, (RATING_OF_FIVE,))
NUMBER = Form(Grammar.TAGGED_NUMBER, (RATING_OF_FIVE,), thought="think")
PLAIN_NUMBER = Form(Grammar.TAGGED_NUMBER, (RATING_OF_FIVE,))
TAGGED_JSON = Form(Grammar.TAGGED_JSON, (RATING_OF_FIVE,), thought="thinking")
JSON = Form(Grammar.JSON, (RATING_OF_FIVE,), reasoning=("evidence", "solution"), is_quoted=True)
PLAIN_JSON = Form(Grammar.JSON, (Attribute("noise", "noise", ScoreRange(100, 0), 0), RATING_OF_FIVE))

FORMS = {
    "attributes": ATTRIBUTES,
    "perception": PERCEPTION,
    "number": NUMBER,
    "plain number": PLAIN_NUMBER,
    "tagged json": TAGGED_JSON,
    "json": JSON,
    "plain json": PLAIN_JSON,
}
