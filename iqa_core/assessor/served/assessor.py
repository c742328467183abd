"""Prepared images and a written rubric -> requests to a server -> assessments; the parser and what it asks are ours.

Images are sent as PNG, as they were prepared: what the server sees depends on no other image, and nothing is compressed
anew. The seed of a request is a key of the image (see written/keys), so the same server draws the same samples again;
whether its answers depend on what else it writes at that moment is the server's affair.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.assessor.batching import MAX_ROWS
from iqa_core.assessor.checkpoint.system_prompt import system_prompt
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.preparing.preparers import FullSizePreparer, TokenCost
from iqa_core.assessor.protocol import AssessorSpec, texts_of_images
from iqa_core.assessor.served.server import (
    EXPLICIT,
    PREFIX,
    TOKEN_VARIABLE,
    Choice,
    Refused,
    ServedModel,
    Server,
    require_answer,
)
from iqa_core.errors import CallerError
from iqa_core.images.in_memory import as_file
from iqa_core.records import (
    Assessment,
    FreeAnswer,
    FreeQuestion,
    ImageLimits,
    Reason,
    Rejection,
)
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.rubrics.written.rubric import QUESTION
from iqa_core.slots import SAMPLE_TEXT
from iqa_core.written.judging import Sample, judged
from iqa_core.written.keys import sample_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENGINE = "openai"
"""As the fingerprint has it."""

TOKEN = "engine_token"
"""Of a spec's options, which are never shown: the same on its way to the processes of a cluster."""

ASKED_AGAIN = 3
"""Requests about one image at most, where the server gives fewer answers than were asked for."""

REQUESTS_AT_ONCE = 64
"""Of one process; the server makes batches of what it has."""

PATIENCE_SHARE = 0.8
"""Of the time limit of a batch: how long one request is tried. So a server that is gone ends the run, and no image."""

SEED_BITS = 2**31 - 1
"""Servers take seeds of 32 bits with a sign."""


def described(config: AssessorConfig, rubric: AnyRubric, limits: ImageLimits, parts: Mapping[str, str]) -> AssessorSpec:
    """The served model under a rubric; the server is asked, once about a grey square.

    parts: of the fingerprint, without what the server says. Raises CallerError for a rubric of closed sets or one whose
    numbers are read as distributions, which no server gives; where the server is none, or has no such model; RunError
    where it does not answer.
    """
    if not isinstance(rubric, WrittenRubric):
        raise CallerError(
            f"rubric {rubric.id} has closed sets of answers, whose probabilities no such server gives; load the "
            "checkpoint here (without --assessor.engine), or name a written rubric"
        )
    if rubric.decoding.readout != "parsed":
        raise CallerError(f'rubric {rubric.id}: readout = "expected" needs logits, which no such server gives')
    token = os.environ.get(TOKEN_VARIABLE)
    with closing(_server(config, token)) as server:
        model = server.model(config.checkpoint if "checkpoint" in config.model_fields_set else None)
        grey, texts = np.full((56, 56, 3), 128, np.uint8), dict.fromkeys(rubric.slots, SAMPLE_TEXT)
        require_answer(server, _Asking(rubric, model).body(grey, texts, 1, 0))
    preparer = FullSizePreparer(limits, TokenCost.of(rubric), config.max_pixels, min_visual_tokens=1)
    own = {"weights": f"served {model.description}", "engine": ENGINE}
    own |= {name: "the server's" for name in ("tokenizer", "dtype", "noise") if name in parts}
    options = {} if token is None else {TOKEN: token}
    return AssessorSpec(model.id, rubric, system_prompt(rubric, None), preparer, {**parts, **own}, options)


def loaded(spec: AssessorSpec, config: AssessorConfig, fingerprint: str) -> ServedAssessor:
    """The described assessor. Raises CallerError where the server has another model by now, or none."""
    server = _server(config, spec.storage_options.get(TOKEN))
    try:
        model = server.model(spec.checkpoint)
        said = f"served {model.description}"
        if said != spec.fingerprint_parts["weights"]:
            raise CallerError(f"the run began with {spec.fingerprint_parts['weights']}, and the server has {said}")
    except BaseException:
        server.close()
        raise
    return ServedAssessor(spec, model, server, config, fingerprint)


def _server(config: AssessorConfig, token: str | None) -> Server:
    patience_s = PATIENCE_SHARE * config.timeout_s
    return Server(config.engine.removeprefix(PREFIX), token, patience_s, patience_s)


class _Asking:
    """Requests about images under one rubric."""

    def __init__(self, rubric: WrittenRubric, model: ServedModel) -> None:
        self._rubric = rubric
        self._model = model

    def body(self, pixels: NDArray[np.uint8], texts: Mapping[str, str], samples: int, key: int) -> dict[str, Any]:
        """A request for so many answers. key: of the noise of the first."""
        file = as_file(pixels, 1)
        assert not isinstance(file, Rejection), "pixels in memory can always be packed"
        url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
        parts = {
            "image": {"type": "image_url", "image_url": {"url": url}},
            "text": {"type": "text", "text": self._rubric.asked(texts)},
        }
        system = self._rubric.system
        turns = [] if system is None else [{"role": "system", "content": system}]
        return {
            "model": self._model.id,
            "messages": [*turns, {"role": "user", "content": [parts[part] for part in self._rubric.parts]}],
            "n": samples,
            **self._decoding(key),
        }

    def _decoding(self, key: int) -> dict[str, Any]:
        """Every setting where the server takes it; elsewhere what is OpenAI's, and what the rubric sets."""
        own = self._rubric.decoding
        found: dict[str, Any] = {
            "temperature": own.temperature,
            "top_p": own.top_p,
            "presence_penalty": own.presence_penalty,
            "max_tokens": own.max_new_tokens,
        }
        if own.temperature:
            found["seed"] = key & SEED_BITS
        if own.stop:
            found["stop"] = [*own.stop]
        others = {"top_k": own.top_k or -1, "min_p": own.min_p, "repetition_penalty": own.repetition_penalty}
        is_set = {"top_k": own.top_k > 0, "min_p": own.min_p > 0, "repetition_penalty": own.repetition_penalty != 1}
        explicit = self._model.owner in EXPLICIT
        found |= {name: value for name, value in others.items() if explicit or is_set[name]}
        if explicit and own.stop:  # which stay in an answer
            found |= {"include_stop_str_in_output": True} if self._model.owner == "vllm" else {"no_stop_trim": True}
        if self._rubric.template:
            found["chat_template_kwargs"] = dict(self._rubric.template)
        return found


class ServedAssessor:
    """A server's model with a written rubric; obeys `iqa_core.assessor.protocol.Assessor` and `Describer`."""

    def __init__(
        self, spec: AssessorSpec, model: ServedModel, server: Server, config: AssessorConfig, fingerprint: str
    ) -> None:
        """fingerprint: part of the key of each sample's noise."""
        assert isinstance(spec.rubric, WrittenRubric)
        self.rubric: WrittenRubric = spec.rubric
        self.preparer = spec.preparer
        self._model, self._server, self._fingerprint = model, server, fingerprint
        self._asking = _Asking(self.rubric, model)
        self._free = _Asking(self.rubric.free, model)
        self._rows = config.decode_rows or MAX_ROWS
        self._threads = ThreadPoolExecutor(min(REQUESTS_AT_ONCE, self._rows), thread_name_prefix="engine")

    @property
    def versions(self) -> Mapping[str, str]:
        """What the server says of itself."""
        return {"device": "a server's", "engine": f"{self._model.owner} {self._model.version}".strip() or "unknown"}

    @property
    def images_at_once(self) -> int:
        """Images that are asked about at once at most, each with all its samples."""
        return max(1, self._rows // self.rubric.decoding.samples)

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per prepared image, in order. Raises RunError where the server is gone."""
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        return [*self._threads.map(self._assessed, images, asked)]

    def describe(
        self, images: Sequence[NDArray[np.uint8]], questions: Sequence[FreeQuestion]
    ) -> list[FreeAnswer | Rejection]:
        """One answer per prepared image, in order, each to its own question; see `Describer`."""
        if len(images) != len(questions):
            raise ValueError(f"there are {len(questions)} questions for {len(images)} images")
        return [*self._threads.map(self._described, images, questions)]

    def close(self) -> None:
        """End its connections and threads."""
        self._threads.shutdown()
        self._server.close()

    def _assessed(self, pixels: NDArray[np.uint8], texts: Mapping[str, str]) -> Assessment | Rejection:
        decoding = self.rubric.decoding
        keys = sample_keys(self._fingerprint, pixels, decoding.samples, decoding.seed)
        found: list[Choice] = []
        try:
            for _ in range(ASKED_AGAIN):
                left = len(keys) - len(found)
                found += self._server.choices(self._asking.body(pixels, texts, left, keys[len(found)]))[:left]
                if len(found) == len(keys):
                    return judged([Sample(one.text, one.finish) for one in found], self.rubric.form)
        except Refused as error:
            return Rejection(Reason.ASSESSOR_FAILED, str(error))
        return _too_few(len(found), len(keys))

    def _described(self, pixels: NDArray[np.uint8], question: FreeQuestion) -> FreeAnswer | Rejection:
        body = self._free.body(pixels, {QUESTION: question.text}, 1, 0) | {"max_tokens": question.max_tokens}
        try:
            for one in itertools.chain.from_iterable(self._server.choices(body) for _ in range(ASKED_AGAIN)):
                return FreeAnswer(one.text, one.finish)
        except Refused as error:
            return Rejection(Reason.ASSESSOR_FAILED, str(error))
        return _too_few(0, 1)


def _too_few(found: int, asked: int) -> Rejection:
    return Rejection(Reason.ASSESSOR_FAILED, f"the server gave {found} of {asked} answers in {ASKED_AGAIN} requests")
