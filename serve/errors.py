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

    @property
    def response(self) -> Response:
        """What is sent."""
        return self._sent({"code": self._code, "message": self.message})

    @property
    def openai_response(self) -> Response:
        """What is sent to OpenAI's clients: the same, and whose fault it is."""
        fault = "invalid_request_error" if self.status < 500 else "server_error"
        return self._sent({"code": self._code, "message": self.message, "type": fault, "param": self._param})

    def _sent(self, error: ErrorBody) -> Response:
        content: Error = {"error": error}
        return Response(json.dumps(content), status_code=self.status, headers=self.headers, media_type=JSON)


def come_back(status: int, message: str, after_s: int, headers: Mapping[str, str] | None = None) -> Refusal:
    """A refusal (429 or 503) of a request that may succeed when it is sent again after some seconds."""
    return Refusal(status, message, {"Retry-After": str(after_s), **(headers or {})})
