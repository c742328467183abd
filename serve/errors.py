"""A request that gets no results -> its status, a code for programs and a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

JSON = "application/json"

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "body_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "overloaded",
    431: "headers_too_large",
    500: "internal_error",
    503: "unavailable",
}


OUR_OWN = frozenset({"assess", "rank", "ground", "describe"})
"""Paths below /v1/ whose refusals are not in OpenAI's form."""


class ErrorBody(TypedDict):
    """What was wrong, for programs and for people."""

    code: str
    message: str
    type: NotRequired[str]
    param: NotRequired[str | None]


class Error(TypedDict):
    """What every request without results is answered."""

    error: ErrorBody


class Refusal(Exception):
    """The request is at fault, or the moment is; raised anywhere, answered as `Error`."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        """code: default: that of the status. param: the field that is at fault, for OpenAI's clients."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self._code = code or CODES.get(status, "error")
        self._param = param

    def response(self, path: str) -> Response:
        """What is sent. path: of the request; OpenAI's clients are told whose fault it is, too."""
        error: ErrorBody = {"code": self._code, "message": self.message}
        if is_openais(path):
            error["type"] = "invalid_request_error" if self.status < 500 else "server_error"
            error["param"] = self._param
        content: Error = {"error": error}
        return Response(json.dumps(content), status_code=self.status, headers=self.headers, media_type=JSON)


def is_openais(path: str) -> bool:
    """Whether clients of OpenAI's ask there: below /v1/, wherever Serve mounts it, all that is not our own."""
    _, is_below, rest = path.rpartition("/v1/")
    return bool(is_below) and rest not in OUR_OWN


def come_back(status: int, message: str, after_s: int, headers: Mapping[str, str] | None = None) -> Refusal:
    """A refusal (429 or 503) of a request that may succeed when it is sent again after some seconds."""
    return Refusal(status, message, {"Retry-After": str(after_s), **(headers or {})})
