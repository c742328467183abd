"""Prompts with slots and an image's texts -> token ids of what stands behind the image, one sequence per prompt.

Everything behind the last markup before the first slot is tokenised at once for each text, since what a text ends with
may merge with what stands behind it. That markup is tokenised with it, so that no tokenizer takes the end for the
beginning of a text, and is then left out: in some families it depends on an image's tiles. What must not change with a
text is compared: the markup, and the tokens behind which the answer is read.

Shape suffix: K prompts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from iqa_core.assessor.prompts.plain_text import PlainText, TextRefused
from iqa_core.errors import CallerError
from iqa_core.slots import SAMPLE_TEXT

logger = logging.getLogger(__name__)

LONG_TEXT = "two dogs and a cat on a red sofa, seen from above through a window"

ENDINGS = (
    SAMPLE_TEXT,
    LONG_TEXT,
    "12",
    'it says "no"',
    "wait...",
    "a room (empty)",
    "x_",
    "as follows:",
    "what?!",
    "犬",
    "🐶",
)
"""Texts of which each ends in another kind of character."""

KNOWN_TOKENS = 2**20
"""Tokens of encoded texts that are kept, 40 MB: images of one prompt come close to one another."""

Tails = tuple[tuple[int, ...], ...]
"""Token ids of the ends of K prompts."""


class SlotTails:
    """Encodes the ends of K prompts with an image's texts in them."""

    def __init__(
        self,
        plain: PlainText,
        markers: Mapping[str, str],
        prompts_K: Sequence[str],
        known_tokens: int = KNOWN_TOKENS,
    ) -> None:
        """Take prompts as the tokenizer gets them, in which each slot's marker stands for its text.

        known_tokens: bound on the tokens of encoded texts that are kept, beside those of the newest.
        Raises CallerError when an answer would be read right behind a text.
        """
        self._plain = plain
        self._known_tokens = known_tokens
        self.slots = tuple(markers)
        """Names of the slots."""
        self._names = {marker: slot for slot, marker in markers.items()}
        self._markers = re.compile("|".join(self._names))
        self._tails_K = self._cut([plain.named(prompt) for prompt in prompts_K])
        self._known: dict[tuple[str, ...], Tails] = {}
        self._num_known = 0
        self._is_warned = False
        self.sample = self._ids(self._tails_K, dict.fromkeys(markers, SAMPLE_TEXT))
        """Ends of the prompts with SAMPLE_TEXT in all slots."""
        self._structures_K = [plain.structure(ids) for ids in self.sample]
        self._ends_K = [self._end(tail) for tail in self._tails_K]

    def __call__(self, texts: Mapping[str, str]) -> Tails:
        """Ends of the prompts with these texts, slot -> text, white space around them apart.

        Raises TextRefused when a text cannot stand in the prompts.
        """
        key = tuple(texts[slot].strip() for slot in self.slots)
        tails = self._known.pop(key, None)
        if tails is None:
            tails = self._checked(dict(zip(self.slots, key, strict=True)))
            self._num_known += sum(map(len, tails))
        self._known[key] = tails  # the newest stands last
        while self._num_known > self._known_tokens and len(self._known) > 1:
            self._num_known -= sum(map(len, self._known.pop(next(iter(self._known)))))
        return tails

    def _cut(self, named_K: Sequence[str]) -> list[str]:
        """Ends of named prompts, from the last markup that stands in all of them before anything differs."""
        alike = self._markers.split(shared_start(named_K))[0]
        begin = max(self._plain.markup_places(alike), default=None)
        self._num_before = 0 if begin is None else 1
        return [named[begin or 0 :] for named in named_K]

    def _checked(self, texts: Mapping[str, str]) -> Tails:
        if not all(texts.values()):
            raise TextRefused("the text is blank")
        tails = self._ids(self._tails_K, texts)
        for ids, structure, end in zip(tails, self._structures_K, self._ends_K, strict=True):
            if self._plain.structure(ids) != structure:
                raise TextRefused("the text has a character for which the model's tokenizer has no token")
            if ids[len(ids) - len(end) :] != end:
                raise TextRefused("the text changes the tokens behind which the answer is read")
        return tails

    def _ids(self, tails_K: Sequence[str], texts: Mapping[str, str]) -> Tails:
        # in one pass: a marker inside a text, could anybody guess one, would stay what it is
        found = self._plain.encode_all(
            [self._markers.sub(lambda found: texts[self._names[found.group()]], tail) for tail in tails_K]
        )
        return tuple(ids[self._num_before :] for ids in found)

    def _end(self, tail: str) -> tuple[int, ...]:
        """The last tokens of a tail, which no text may change: all from the first markup behind the last slot."""
        *before, behind = self._markers.split(tail)
        if not before:
            return ()
        if places := self._plain.markup_places(behind):
            return self._plain.encode(behind[places[0] :])
        return self._end_in_words(tail)

    def _end_in_words(self, tail: str) -> tuple[int, ...]:
        """The same where plain words stand behind the slot: the last tokens that ENDINGS have in common."""
        ends = [reversed(self._ids([tail], dict.fromkeys(self.slots, text))[0]) for text in ENDINGS]
        alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ends, strict=False))
        end = tuple(tokens[0] for tokens in alike)[::-1]
        if not end:
            raise CallerError(
                "the answer would be read right behind a text, which changes its tokens; give the rubric an "
                "answer_prefix, or let the query end in words of its own"
            )
        if not self._is_warned:
            logger.warning(
                "this chat template begins an answer in plain words, not in markup: a text can hold the same words, "
                "and the model cannot tell them apart"
            )
            self._is_warned = True
        return end


def shared_start(texts: Sequence[str]) -> str:
    """The longest beginning that all texts have."""
    first, last = min(texts), max(texts)  # in order of their letters, so that all others begin as these two do
    return "".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
