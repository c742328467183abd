"""A fast tokenizer -> a copy that takes nothing of a text for markup: what strangers write stays the letters it is.

The copy knows the tokenizer's added tokens by private names, drawn anew for each copy. A template gets its markup back
under these names (`named`); a text that is then put into it knows none of them, so `<|im_end|>` in a caption becomes
the tokens of these letters. The whole prompt is tokenised at once, so no token breaks off where a text begins or ends.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from iqa_core.errors import CallerError
from iqa_core.records import Reason

NAME = "x{nonce}{number:06x}x"
"""Letters and digits of one length: no normaliser changes them, and no name is part of another."""

FIRST_MARKER = 0xFF0000
"""Names from this number on are no token's; the largest vocabularies have a fiftieth as many tokens."""


def ids_of_markup(settings: Mapping[str, Any], kinds: str | tuple[str, ...] = "") -> list[int]:
    """Token ids that a configuration or a processor has under names such as `image_token_id`.

    kinds: how such a name begins.
    """
    return [
        value
        for name, value in settings.items()
        if isinstance(value, int) and name.endswith(("_token_id", "_token_index")) and name.startswith(kinds)
    ]


class TextRefused(Exception):
    """Raised for a text that cannot stand in a prompt; its message is a sentence about the text.

    It is refused whenever this model is asked, so its reason is none that is tried again.
    """

    def __init__(self, said: str, reason: Reason = Reason.MISSING_TEXT) -> None:
        super().__init__(said)
        self.reason = reason


class PlainText:
    """Tokenises prompts whose markup bears private names, and texts in them as the letters they are."""

    def __init__(self, tokenizer: Any, structural_ids: Sequence[int] = ()) -> None:
        """Copy a fast tokenizer of transformers.

        structural_ids: token ids beside the tokenizer's own that no text may give, such as the image placeholder's.
        Raises CallerError when the tokenizer cannot be copied with other names.
        """
        self._tokenizer = tokenizer
        self._nonce = secrets.token_hex(16)
        try:
            content = json.loads(tokenizer.backend_tokenizer.to_str())
            markup = [token for token in content["added_tokens"] if _is_markup(token)]
            self._names = {
                token["content"]: NAME.format(nonce=self._nonce, number=number) for number, token in enumerate(markup)
            }
            self._contents = {int(token["id"]): str(token["content"]) for token in markup}
            self._markup = re.compile("|".join(self._names.values()) or "(?!)")
            self._copy = _loaded(_renamed(content, self._names))
        except Exception as error:  # a slow tokenizer has no such text, and the library raises bare exceptions
            raise CallerError(
                f"the rubric has slots, but {type(tokenizer).__name__} cannot be kept from taking their texts for "
                f"markup: {type(error).__name__} ({error}); use a checkpoint with a fast tokenizer (tokenizer.json)"
            ) from None
        unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        self.structural = frozenset({*self._contents, *tokenizer.all_special_ids, *structural_ids, *unknown})
        """Token ids that only a template may give."""
        self._require_plain()

    def marker(self, number: int) -> str:
        """A name, 0 to 65,535, that stands in a template where a text will be put."""
        return NAME.format(nonce=self._nonce, number=FIRST_MARKER + number)

    def named(self, template: str) -> str:
        """A template's text with its markup under private names."""
        found = self._tokenizer(template, add_special_tokens=False, return_offsets_mapping=True)
        parts, end = [], 0
        for token, (begin, after) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            content = self._contents.get(token)
            if content is not None and begin >= end:
                inside = template[begin:after].replace(content, self._names[content], 1)
                parts += [template[end:begin], inside]
                end = after
        return "".join([*parts, template[end:]])

    def markup_places(self, named: str) -> list[int]:
        """Where in a named template markup begins, in order."""
        return [match.start() for match in self._markup.finditer(named)]

    def encode(self, named: str) -> tuple[int, ...]:
        """Token ids of a named template with texts in it. Raises TextRefused on half a surrogate pair."""
        return self.encode_all([named])[0]

    def encode_all(self, named_K: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The same for many, in two thirds of the time: 64 questions with a text of 100 letters take 7 ms."""
        try:
            encoded = self._copy.encode_batch_fast(list(named_K), add_special_tokens=False)
            return tuple(tuple(one.ids) for one in encoded)
        except (TypeError, UnicodeEncodeError):
            raise TextRefused("the text has half a surrogate pair, which is no character") from None

    def structure(self, ids: Sequence[int]) -> list[int]:
        """Those of the ids that only a template may give."""
        return [token for token in ids if token in self.structural]

    def _require_plain(self) -> None:
        """Raises CallerError when letters still give a token that they name: a byte, `<0x0A>`, in some vocabularies.

        Or when markup is a single letter, which would be lost in texts.
        """
        tokens_of_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
        bytes_of_vocabulary = set(self._tokenizer.convert_tokens_to_ids(tokens_of_bytes))
        forbidden = (self.structural | bytes_of_vocabulary) - {self._tokenizer.unk_token_id}
        for text in (*self._names, *tokens_of_bytes):
            if len(text) == 1 or not forbidden.isdisjoint(self.encode(text)):
                raise CallerError(
                    f"the rubric has slots, but the checkpoint's tokenizer takes the letters {text!r} for a token of "
                    "its own wherever they stand; use another checkpoint, or a rubric without slots"
                )


def _is_markup(token: dict[str, Any]) -> bool:
    """Whether an added token is more than a way of writing white space, as runs of spaces and lines are in some."""
    return bool(token["special"]) or not token["content"].replace("▁", " ").isspace()


def _loaded(content: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(content))


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A tokenizer's JSON with other names for some tokens; merges that would make or take one of them are gone."""
    model = content["model"]
    if isinstance(model["vocab"], dict):
        vocabulary: Any = {names.get(piece, piece): token for piece, token in model["vocab"].items()}
    else:
        vocabulary = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    renamed = {**model, "vocab": vocabulary}
    if model.get("unk_token") in names:
        renamed["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        renamed["merges"] = [merge for merge in model["merges"] if not _touches(merge, names)]
    added = [{**token, "content": names.get(token["content"], token["content"])} for token in content["added_tokens"]]
    return {**content, "model": renamed, "added_tokens": added, "truncation": None, "padding": None}


def _touches(merge: str | list[str], names: dict[str, str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left + right in names or left in names or right in names
