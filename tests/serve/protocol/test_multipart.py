"""Forms taken apart as their senders put them together, and little work for whatever is none."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve.errors import Refusal
from serve.protocol.multipart import WINDOW_BYTES, options_of, parts_of
from tests.clock import least_cpu_s

IMAGE = b'Content-Disposition: form-data; name="images"; filename="a;b.png"\r\nContent-Type: image/png\r\n\r\n'


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary


@settings(max_examples=25, deadline=None)
@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=4), boundary=st.from_regex(rb"\A[a-z]{1,8}\Z"))
def test_parts_hold_what_was_sent(contents: list[bytes], boundary: bytes) -> None:
    assume(not any(b"\r\n--" + boundary in b"\r\n" + content for content in contents))
    for before in (b"", b"\r\n\r\n"):
        parts = list(parts_of(before + form(*(IMAGE + one for one in contents), boundary=boundary), boundary, 4))
        assert [part.content for part in parts] == contents
        assert {part.name for part in parts} == {"images"}
        assert ["".join(part.latin_pieces()).encode("latin-1") for part in parts] == contents


def test_what_a_client_library_sends_is_read() -> None:
    sent = httpx2.Request(
        "POST", "http://x", files=[("images", b"\r\n--\r\n"), ("images", b"")], data={"probs": "true"}
    )
    _, options = options_of(sent.headers["content-type"].encode())
    parts = [(part.name, part.content) for part in parts_of(sent.read(), options[b"boundary"], 3)]
    assert sorted(parts) == [("images", b""), ("images", b"\r\n--\r\n"), ("probs", b"true")]


def test_a_boundary_is_found_where_two_searches_meet() -> None:
    for shift in range(6):
        content = b"x" * (WINDOW_BYTES - shift)
        assert [part.num_bytes for part in parts_of(form(IMAGE + content), b"b", 1)] == [len(content)]


def filled(unit: bytes, num_bytes: int = 2**21) -> bytes:
    return unit * (num_bytes // len(unit))


@pytest.mark.parametrize(
    ("body", "boundary", "said"),
    [
        (form(*[IMAGE] * 10_000), b"b", "more than 64 parts"),
        (form(filled(b"X: y\r\n") + IMAGE), b"b", "more than 4096 bytes of headers"),
        (form(filled(b"X: y\r\n", 600) + IMAGE), b"b", "more than 16 headers"),
        (form(b"X: " + filled(b"y") + b"\r\n" + IMAGE), b"b", "more than 4096 bytes of headers"),
        (form(b"Content-Disposition: form-data" + b";a" * 100 + b"\r\n\r\n"), b"b", "more than 64 options"),
        (filled(b"\r\n") + form(IMAGE), b"b", "malformed"),
        (form(IMAGE) + filled(b"\r\n"), b"b", None),
        (form(IMAGE + filled(b"\r\n--c")), b"b", None),
        (form(IMAGE + filled(b"\r\n--bc")), b"b", "malformed"),
        (form(IMAGE + filled(b"\r\n--" + b"a" * 69), boundary=b"a" * 70), b"a" * 70, None),
        (form(IMAGE + filled(b"a"), boundary=b"a" * 70), b"a" * 70, None),
        (form(IMAGE + filled(b"\r")), b"b", None),
        (form(IMAGE)[:-6], b"b", "cut"),
        (form(IMAGE[:-2]), b"b", "cut"),
        (form(b"X y\r\n\r\n"), b"b", "malformed"),
        (form(b"X\r\n y: z\r\n\r\n"), b"b", "malformed"),
        (form(b"\r\nno headers"), b"b", "no name"),
        (form(IMAGE), b"", "1 to 256 bytes"),
        (form(IMAGE, boundary=b"b" * 300), b"b" * 300, "1 to 256 bytes"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_form_of_any_kind_costs_little(body: bytes, boundary: bytes, said: str | None) -> None:
    def outcome() -> str | None:
        try:
            assert {part.name for part in parts_of(body, boundary, 64)} == {"images"}
        except Refusal as refusal:
            return refusal.message
        return None

    found = outcome()
    assert found == said or (found and said and said in found)
    assert least_cpu_s(outcome, 0.1) <= 0.1
