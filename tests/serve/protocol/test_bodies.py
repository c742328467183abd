"""Questions in a body: what is too much is told before it is validated, and one fault of a list is enough.

Tests serve/errors.py.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from serve.errors import Refusal
from serve.protocol.bodies import from_json, understood
from serve.protocol.dialects import flow_factory_images, unirl_images
from serve.protocol.json_values import PIECE_BYTES
from serve.settings import MAX_TEXT

URI = b'{"uri":""}'
TURNS = b'"history":[{"image_b64":"AAAA"}]'
FORM = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b'


READERS: dict[str, Callable[[bytes], Any]] = {
    "json": lambda body: understood(body, "application/json", 64),
    "form": lambda body: understood(body, "multipart/form-data; boundary=b", 64),
    "unirl": lambda body: unirl_images(body, 64),
    "flow": lambda body: flow_factory_images(body, 64),
}


def refusal(body: bytes, kind: str) -> str:
    """What is said about it, within this memory: 4000 errors would take 6 MB."""
    tracemalloc.start()
    with pytest.raises(Refusal) as caught:
        READERS[kind](body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.status == 422
    assert peak_bytes < 3e6
    return caught.value.message


def many(entry: bytes, times: int = 4000) -> bytes:
    return b"[" + b",".join([entry] * times) + b"]"


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("json", b'{"images":%b}' % many(b"0"), "4000 images are more than the 64"),
        ("json", b'{"images":%b}' % many(b"0", 64), "images.0: Input should be"),
        ("json", b'{"images":%b}' % many(b"{}", 64), "images.0: Value error, give either data or uri"),
        ("json", b'{"images":[%b],"dimensions":%b}' % (URI, many(b"0")), "dimensions.0: Input should be a valid str"),
        ("json", b'{"images":[%b],"dimensions":%b}' % (URI, many(b'"a"')), "dimensions: List should have at most 64"),
        (
            "json",
            b'{"images":[%b],"dimensions":%b}' % (URI, many(b'"a"', 3)),
            "dimensions: Value error, 'a' is there 3",
        ),
        ("json", json.dumps({f"k{k}": 0 for k in range(4000)}).encode(), "body: Value error, 4000 fields"),
        ("json", b'{"images":[%b]}' % json.dumps({f"k{k}": 0 for k in range(4000)}).encode(), "images.0: Value error"),
        ("json", b'{"images":[%b],"%b":0}' % (URI, b"k" * 10**6), "Extra inputs are not permitted"),
        ("json", b'{"images":[%b],"prompt":"%b"}' % (URI, b"\\u0000" * 10**6), "prompt: it has more than 16384"),
        ("json", b'{"images":[%b],"prompt":"%b"}' % (URI, b"x" * (MAX_TEXT + 1)), "prompt: String should have at most"),
        ("json", b'{"images":[%b],"prompts":%b}' % (URI, many(b'""')), "4000 prompts for 1 images"),
        ("json", b'{"images":[%b],"prompts":%b}' % (URI, many(b'""', 10**5)), "room for 20480 values"),
        ("json", b'{"images":[%b],"prompts":%b}' % (URI, many(b"0", 64)), "prompts.0: Input should be a valid str"),
        ("json", b'{"images":[%b],"prompts":["%b"]}' % (URI, b"\\u0000" * 10**6), "prompts.0: it has more than 16384"),
        ("json", b'{"images":[{"uri":"","texts":{"a":"%b"}}]}' % (b"x" * 10**6), "images.0.texts.a: it has more than"),
        ("json", b'{"images":[{"uri":"","texts":{"%b":""}}]}' % (b"k" * 10**6), "String should have at most 256"),
        (
            "json",
            b'{"images":[{"uri":"","texts":%b}]}' % json.dumps(dict.fromkeys(map(str, range(4000)), "")).encode(),
            "images.0.texts: Dictionary should have at most 32",
        ),
        ("json", b'{"images":[%b],"rubric":"%b"}' % (URI, b"x" * 10**6), "rubric: String should have at most 256"),
        ("json", b'{"images":[%b],"request_id":"%b"}' % (URI, b"x" * 10**6), "request_id: String should have at most"),
        ("json", b'{"images":[{"uri":"data:%b"}]}' % (b"x" * 10**6), "a data URI goes into data"),
        ("json", b'{"images":' + b"1" * 4300 + b"}", "images: Input should be a valid list"),
        ("json", b'{"images":1e' + b"9" * 4300 + b"}", "images: Input should be a valid list"),
        ("json", b'"images"', "body: "),
        ("unirl", b'{"requests":%b}' % many(b"0", 64), "requests.0: Input should be"),
        ("unirl", b'{"requests":%b}' % many(b"0"), "4000 images are more than the 64"),
        ("unirl", b'{"requests":[{"required_rewards":["iqa"],"history":%b}]}' % many(b"0"), "requests.0.history.0: In"),
        ("unirl", b'{"requests":[{"required_rewards":%b,%b}]}' % (many(b"0"), TURNS), "requests.0.required_rewards.0"),
        (
            "unirl",
            b'{"requests":[{"required_rewards":%b,%b}]}' % (many(b'"clip"'), TURNS),
            "reward 'clip' is not served",
        ),
        ("flow", b'{"image":%b,"prompt":[]}' % many(b'""'), "4000 images are more than the 64"),
        ("flow", b'{"image":["AAAA"],"prompt":%b}' % many(b"0"), "prompt.0: Input should be a valid string"),
        ("flow", b'{"image":["AAAA"],"prompt":%b}' % many(b'""'), "4000 prompts for 1 images"),
        ("form", b"--b\r\n" + b"\r\n--b\r\n".join([FORM % (b"images", b"")] * 66), "65 images are more than the 64"),
        (
            "form",
            b"--b\r\n"
            + b"\r\n--b\r\n".join([FORM % (b"images", b""), *[FORM % (b"dimensions", b"hue")] * 2])
            + b"\r\n--b--",
            "dimensions: Value error, 'hue' is there 2 times",
        ),
        (
            "form",
            b"--b\r\n" + b"\r\n--b\r\n".join([FORM % (b"dimensions", b"hue")] * 4000) + b"\r\n--b--",
            "more than 206 parts",
        ),
        (
            "form",
            b"--b\r\n"
            + b"\r\n--b\r\n".join([FORM % (b"images", b""), *[FORM % (b"prompts", b"")] * 100])
            + b"\r\n--b--",
            "100 prompts for 1 images",
        ),
        ("form", b"--b\r\n" + FORM % (b"prompts", b"x" * 10**6) + b"\r\n--b--", "prompts: it has more than 16384"),
        ("form", b"--b\r\n" + FORM % (b"prompt", b"x" * 10**6) + b"\r\n--b--", "prompt: it has more than 16384"),
    ],
    ids=lambda value: value.decode("latin-1")[:50] if isinstance(value, bytes) else None,
)
def test_too_much_is_refused_by_its_first_fault(kind: str, body: bytes, said: str) -> None:
    message = refusal(body, kind)
    assert said in message
    assert len(message) < 600


def test_a_long_prompt_is_carried_back_whole_however_it_is_spelt() -> None:
    prompt = ('a "hall" in Köln 🏛\n' * 1000)[:MAX_TEXT]
    for is_ascii in (True, False):
        for filling in (0, 300_000):
            body: dict[str, Any] = {"prompt": prompt, "images": [{"data": "QUJD" * (filling // 4 + 1)}]}
            asked = from_json(json.dumps(body, ensure_ascii=is_ascii).encode(), 1)
            assert asked.question.prompt == prompt
            assert asked.images[0].data == b"ABC" * (filling // 4 + 1)


def prompted(num_images: int, prompt: bytes) -> dict[str, bytes]:
    """By reader: as many images, each with this prompt, and as many texts."""

    def each(entry: bytes) -> bytes:
        return b",".join([entry] * num_images)

    part = FORM % (b"images", b"QUJD") + b"\r\n--b\r\n" + FORM % (b"prompts", prompt)
    turn = b'{"history":[{"text":"%b","image_b64":"QUJD"}],"required_rewards":["iqa"]}' % prompt
    image = b'{"data":"QUJD","texts":{"prompt":"%b"}}' % prompt
    return {
        "json": b'{"images":[%b],"prompts":[%b]}' % (each(image), each(b'"%b"' % prompt)),
        "form": b"--b\r\n" + b"\r\n--b\r\n".join([part] * num_images) + b"\r\n--b--",
        "unirl": b'{"requests":[%b]}' % each(turn),
        "flow": b'{"image":[%b],"prompt":[%b]}' % (each(b'"QUJD"'), each(b'"%b"' % prompt)),
    }


@pytest.mark.parametrize(
    "prompt", [b"a hall", "🐕".encode() * 4000, b"\\u0061" * 2700], ids=["short", "wide", "escaped"]
)
@pytest.mark.parametrize("kind", READERS)
def test_twice_as_many_prompts_are_twice_the_work_and_the_memory(kind: str, prompt: bytes) -> None:
    def work(num_images: int) -> tuple[int, int]:
        body = prompted(num_images, prompt)[kind]
        calls = 0

        def count(frame: Any, event: str, called: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        tracemalloc.start()
        sys.setprofile(count)
        try:
            READERS[kind](body)
        finally:
            sys.setprofile(None)
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return calls, peak_bytes

    work(1)  # what is made once
    (calls, peak_bytes), (more_calls, more_bytes) = work(16), work(32)
    assert more_calls <= 2.1 * calls
    assert more_bytes <= 2.5 * peak_bytes + 2**14, "lists have room for more than they hold"


@pytest.mark.parametrize("unit", [b"QUJD", b"QUJ\\u0044", b"QU\\/D", b"QUJD\\n"])
def test_an_image_is_held_once_beside_its_body(unit: bytes) -> None:
    body = b'{"images":[{"data":"%b"}]}' % (unit * (2**22 // len(unit)))
    tracemalloc.start()
    [image] = from_json(body, 1).images
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert image.data is not None
    assert peak_bytes < len(body) + 12 * PIECE_BYTES


@pytest.mark.parametrize("unit", [b"QUJD", b"QU\\/D"])
def test_no_call_holds_the_interpreter(unit: bytes) -> None:
    """A call into C lets no other thread run, nor the event loop, before it returns."""
    body = b'{"images":[{"data":"%b"}]}' % (unit * (2**24 // len(unit)))
    tries = (longest_call_s(lambda: from_json(body, 1)) for _ in range(3))
    assert any(longest_s < 0.02 for longest_s in tries), "16 MiB at once take 20 to 100 ms"


def longest_call_s(work: Callable[[], object]) -> float:
    """CPU seconds of the longest call into C."""
    began, longest = 0.0, 0.0

    def clock(frame: Any, event: str, called: Any) -> None:
        nonlocal began, longest
        if event == "c_call":
            began = time.thread_time()
        elif event == "c_return":
            longest = max(longest, time.thread_time() - began)

    sys.setprofile(clock)
    try:
        work()
    finally:
        sys.setprofile(None)
    return longest
