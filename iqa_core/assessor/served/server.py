"""A server of OpenAI's chat completions -> what it serves, and answers about images: tried again where that may help.

What is refused for one request (400, 413, 422) is that request's; everything else that does not pass is the server's,
and ends the run. Needs the extra `client` (httpx2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from iqa_core.endpoint.attempts import Attempts, Endpoint, HttpAnswer, RequestRefused, token_of, within
from iqa_core.errors import CallerError, RunError
from iqa_core.records import Finish

T = TypeVar("T")

TOKEN_VARIABLE = "IQA_ENGINE_TOKEN"
"""Of the environment: the server's bearer token."""

PREFIX = "openai:"
"""Begins `--assessor.engine openai:URL`."""

REFUSED = frozenset({400, 413, 422})
"""Status of an answer that is about one request, not about the server."""

UNKNOWN_CALLER = frozenset({401, 403})

EXPLICIT = frozenset({"vllm", "sglang"})
"""What `/v1/models` says of servers that take every setting of decoding, and have defaults of their own without."""

FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


class Refused(Exception):
    """The server refused a request for what is in it."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as a server names it."""

    id: str
    root: str
    """Of which weights, where the server says so; else the id."""
    version: str
    """Of the server; empty where it does not say."""
    owner: str

    @property
    def description(self) -> str:
        """What of it determines answers, as far as it is known."""
        return " ".join(part for part in (self.id, self.root, self.owner, self.version) if part)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer."""

    text: str
    finish: Finish


class Server:
    """One server; may be shared by threads."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        """url: with or without /v1 at its end. timeout_s: of one try; patience_s: of all tries of a request together.

        Raises CallerError on an address at which nothing can answer, and on a token that no header may have.
        """
        self._endpoint = Endpoint.at(url.strip().rstrip("/").removesuffix("/v1"))
        self._timeout_s, self._patience_s = timeout_s, patience_s
        # an answer is taken as it is sent: unpacked, 8 MiB can be 8 GiB
        headers = {"Accept-Encoding": "identity"}
        if token := token_of(token):
            headers["Authorization"] = f"Bearer {token}"
        # no connection waits for the next request: beside an answer, a handshake is nothing, and none is stale
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx2.Client(headers=headers, timeout=timeout_s, follow_redirects=False, limits=limits)

    def model(self, name: str | None) -> ServedModel:
        """The model of that id; None: the only one. Raises CallerError where there is no such model."""
        found = self._asked("GET", "/v1/models", None, _models)
        if name is None and len(found) == 1:
            name = next(iter(found))
        if name not in found:
            there = ", ".join(found) or "none"
            raise CallerError(
                f"{self._endpoint.url} serves {there}; name one of them with --assessor.checkpoint"
                if name is None
                else f"--assessor.checkpoint {name}: {self._endpoint.url} serves {there}"
            )
        known = found[name]
        root, owner = (str(known.get(key) or "") for key in ("root", "owned_by"))
        return ServedModel(name, root if root != name else "", self._version(), owner)

    def choices(self, body: Mapping[str, Any]) -> list[Choice]:
        """The answers to one request, as many as the server gives; those that it broke off are left out.

        Raises Refused; RunError where the server is gone, has another model, or is of another kind.
        """
        try:
            return self._asked("POST", "/v1/chat/completions", body, lambda found: _choices(found, body["model"]))
        except RequestRefused as error:
            raise RunError(str(error)) from error

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def _version(self) -> str:
        """What `/version` says, which vLLM has and others may. Raises RunError where it is gone."""
        try:
            found = self._asked("GET", "/version", None, lambda found: found)
        except RequestRefused:
            return ""
        return str(found.get("version", "")) if isinstance(found, dict) else ""

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]) -> T:
        attempts = Attempts(self._endpoint, self._patience_s)
        while True:
            try:
                answer = within(self._timeout_s, lambda: self._answer(method, path, body))
            except httpx2.TransportError as error:
                attempts.lost(error)
            else:
                if body is not None and answer.status in REFUSED:
                    raise Refused(f"the server refuses with {answer.status}: {answer.words}")
                if answer.status in UNKNOWN_CALLER:
                    raise RequestRefused(
                        f"{self._endpoint.url} refuses with {answer.status}: {answer.words}; its token is read "
                        f"from the environment ({TOKEN_VARIABLE})"
                    )
                if (found := attempts.accepted(answer, read)) is not None:
                    return found
            time.sleep(attempts.wait_s())

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> HttpAnswer:
        with self._http.stream(method, f"{self._endpoint.url}{path}", json=body) as head:
            answer = HttpAnswer(head, self._timeout_s)
            for block in head.iter_raw():
                answer.add(block)
            return answer


def _models(found: Any) -> dict[str, dict[str, Any]]:
    """Id -> what is said of it. Raises ValueError."""
    try:
        return {str(one["id"]): one for one in found["data"]}
    except (TypeError, LookupError) as error:
        raise ValueError("it has no list of models") from error


def _choices(found: Any, model: str) -> list[Choice]:
    """Raises ValueError for what is no completion, RunError for one of another model, or whose thoughts are cut off."""
    try:
        said, given = str(found["model"]), [(one["message"], one.get("finish_reason")) for one in found["choices"]]
        texts = [(message.get("content") or "", message, FINISHES.get(finish)) for message, finish in given]
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError("it is no chat completion") from error
    if said != model:
        raise RunError(f"the server answers as {said}, and {model} was asked: another model took its place")
    if any(message.get("reasoning_content") or message.get("reasoning") for _, message, _ in texts):
        raise RunError("the server takes thoughts out of answers; start it without a reasoning parser")
    return [Choice(str(text), finish) for text, _, finish in texts if finish is not None]


def require_answer(server: Server, body: Mapping[str, Any]) -> None:
    """Try a request before a run begins. Raises CallerError where the server refuses it, RunError where it is gone."""
    try:
        if not server.choices(body):
            raise CallerError("the server gives no answer to a question about a grey square")
    except Refused as error:
        raise CallerError(f"a question about a grey square: {error}") from error
