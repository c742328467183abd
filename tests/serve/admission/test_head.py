"""Heads that are too large or can be read in two ways are refused in our own words, before anything is made of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve.admission.head import Guard, in_front, with_safe_id
from tests.serve.local import local_endpoint

TOKEN = "correct-horse-battery"


def answer(app: Any, *headers: tuple[str, str], path: str = "/v1/assess", query: str = "") -> tuple[int, str]:
    """Status and message of a request whose body nobody may ask for."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
    }
    asyncio.run(app(scope, receive, send))
    error = json.loads(sent[1]["body"])["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] != "error"
    return sent[0]["status"], error["message"]


HOST = ("host", "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ([HOST, ("content-length", "1" * 5000)], 400, "Content-Length"),
        ([HOST, ("content-length", "0" * 5000 + "5")], 400, "Content-Length"),
        ([HOST, ("content-length", "+1")], 400, "Content-Length"),
        ([HOST, ("content-length", "-1")], 400, "Content-Length"),
        ([HOST, ("content-length", "1_0")], 400, "Content-Length"),
        ([HOST, ("content-length", "\u00b2")], 400, "Content-Length"),
        ([HOST, ("content-length", "")], 400, "Content-Length"),
        ([HOST, ("content-length", "1, 1")], 400, "Content-Length"),
        ([HOST, ("content-length", "1"), ("content-length", "1")], 400, "content-length is there 2 times"),
        ([HOST, ("content-length", "1"), ("transfer-encoding", "chunked")], 400, "exclude each other"),
        ([HOST, HOST], 400, "host is there 2 times"),
        ([HOST, ("authorization", "a"), ("authorization", "b")], 400, "authorization is there 2 times"),
        *(
            ([("host", host)], 400, "Host is neither")
            for host in (
                "",
                "[::1",
                "::1]",
                "[v1.a]",
                "[::1%25lo]",
                "[1::2::3]",
                "a b",
                "a@b",
                "a/b",
                "x:99999",
                "x:-1",
            )
        ),
        *(
            ([("host", host)], 400, "Host is neither")
            for host in ("x:1e1", "x:" + "1" * 5000, "\u00e4", "a" * 300, "[" + ":" * 5000 + "]", "a,b", "http://a")
        ),
        *(
            ([HOST, ("origin", origin)], 400, "Origin is neither")
            for origin in ("", "x", "http://", "http://[::1", "http://a b", "http://a/", "//a", "http://a:x", "\x1b[2J")
        ),
        ([HOST, *[(f"x-{k}", "y") for k in range(100)]], 431, "101 headers are more than 100"),
        ([HOST, ("x", "y" * 40_000)], 431, "bytes of headers are more than 32768"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_an_odd_head_is_refused(headers: list[tuple[str, str]], status: int, said: str) -> None:
    for tokens in ((), (TOKEN,)):
        found, message = answer(local_endpoint(*tokens).gate, *headers)
        assert (found, said in message) == (status, True), message
        assert len(message) < 200


def test_a_long_path_or_query_is_refused() -> None:
    gate = local_endpoint().gate
    assert answer(gate, HOST, path="/" + "a" * 3000)[0] == 414
    assert answer(gate, HOST, query="a" * 3000)[0] == 414


@pytest.mark.parametrize(
    "headers",
    [
        [HOST, ("content-length", "9" * 19)],
        [("host", "localhost"), ("origin", "http://localhost"), ("content-length", "9" * 19)],
        [("host", "[::1]:8000"), ("origin", "http://[::1]:8000"), ("content-length", "9" * 19)],
        [("host", "127.0.0.1:"), ("content-length", "9" * 19)],
    ],
    ids=str,
)
def test_a_plain_head_comes_to_the_next_question(headers: list[tuple[str, str]]) -> None:
    assert answer(local_endpoint().gate, *headers)[0] == 413


@pytest.mark.parametrize("origin", ["null", "https://example.org", "chrome-extension://abcdef"])
def test_origins_of_browsers_are_understood(origin: str) -> None:
    assert answer(local_endpoint().gate, HOST, ("origin", origin))[0] == 403


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["3f2b9c-77"], ["3f2b9c-77"]),
        ([], []),
        (["a" * 129], []),
        ([""], []),
        (["a b"], []),
        (["\x1b[2J"], []),
        (["\u00e4"], []),
        (["a", "b"], []),
    ],
)
def test_an_id_of_a_request_is_a_short_token_or_left_to_serve(given: list[str], kept: list[str]) -> None:
    headers = [(b"host", b"x"), *((b"x-request-id", one.encode("latin-1")) for one in given)]
    assert with_safe_id(headers) == [(b"host", b"x"), *((b"x-request-id", one.encode()) for one in kept)]


def test_the_guard_refuses_what_the_gate_would_and_passes_on_the_rest() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await local_endpoint(TOKEN).gate(scope, receive, send)

    [middleware] = in_front()
    made: Any = middleware.cls
    assert made is Guard
    assert answer(Guard(app), ("host", "[::1"))[0] == 400
    assert not seen
    assert answer(Guard(app), HOST, ("x-request-id", "\x1b[2J"))[0] == 401
    assert b"x-request-id" not in seen[0]
