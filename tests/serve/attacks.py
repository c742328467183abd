"""Requests that once froze the endpoint, each at its worst size: raw HTTP as a hostile caller sends it."""

from __future__ import annotations

import base64
import functools
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import urlsplit

from PIL import Image

from tests.bad_images import png_chunk
from tests.serve.sites import saying

SIDE = 10_000
"""Of the largest picture that is taken: 100 million pixels."""

MIB = 2**20
JSON = "application/json"
BOUNDARY = "part"


@dataclass(frozen=True, slots=True)
class Attack:
    """What one caller sends again and again, on several connections at once."""

    name: str
    body: Callable[[], bytes]
    content_type: str = JSON
    connections: int = 8
    pace_bytes_s: float | None = None
    """How fast the body is sent; 0: it is announced and never sent."""

    def head(self, url: str, token: str) -> bytes:
        parts = urlsplit(url)
        length = 64 * MIB if self.pace_bytes_s is not None else len(self.body())
        return (
            f"POST {parts.path}/v1/assess HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        ).encode()


@contextmanager
def under(attack: Attack, url: str, token: str) -> Iterator[list[bytes]]:
    """Inside, the attack goes on. What it yields are the status lines of its answers."""
    stop = threading.Event()
    answers: list[bytes] = []
    head, body = attack.head(url, token), attack.body()
    threads = [
        threading.Thread(target=_repeat, args=(attack, url, head, body, stop, answers), daemon=True)
        for _ in range(attack.connections)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def _repeat(attack: Attack, url: str, head: bytes, body: bytes, stop: threading.Event, answers: list[bytes]) -> None:
    parts = urlsplit(url)
    while not stop.is_set():
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as line:
                line.settimeout(0.2)
                _send(line, head, stop)
                if attack.pace_bytes_s is None:
                    _send(line, body, stop)
                answers.append(_answer(line, attack, stop))
        except OSError:  # hung up on: it comes again
            answers.append(b"closed")
        stop.wait(1.0)  # what is measured is what requests do, not how many of them a machine can take


def _send(line: socket.socket, data: bytes, stop: threading.Event) -> None:
    """A receiver who does not read is waited for until the attack ends."""
    left = memoryview(data)
    while left and not stop.is_set():
        try:
            left = left[line.send(left) :]
        except TimeoutError:
            continue


def _answer(line: socket.socket, attack: Attack, stop: threading.Event) -> bytes:
    """The status line; a slow sender goes on until it is answered."""
    while not stop.is_set():
        if attack.pace_bytes_s:
            line.sendall(b" " * max(1, int(attack.pace_bytes_s * 0.2)))
        try:
            return line.recv(65_536).partition(b"\r\n")[0]
        except TimeoutError:
            continue
    return b"not answered"


def multipart(images: list[bytes]) -> bytes:
    head = b'--part\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--part--\r\n"


def as_json(images: list[bytes]) -> bytes:
    return json.dumps({"images": [{"data": base64.b64encode(image).decode()} for image in images]}).encode()


def flat_png(colour: int, channels: int, side: int = SIDE) -> bytes:
    """Black all over; colour: PNG's number of the type (0 grey, 3 palette, 6 RGBA)."""
    pixels = zlib.compressobj(6)
    row = bytes(1 + side * channels)
    data = b"".join(pixels.compress(row) for _ in range(side)) + pixels.flush()
    palette = png_chunk(b"PLTE", bytes(768)) + png_chunk(b"tRNS", bytes(256)) if colour == 3 else b""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + palette + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def flat_webp(side: int = SIDE) -> bytes:
    """Takes 12 bytes a pixel to decode."""
    buffer = BytesIO()
    Image.new("RGB", (side, side), "white").save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def many_scans(side: int = SIDE, scans: int = 99) -> bytes:
    """A progressive JPEG whose last scan is there again and again: each goes over all coefficients."""
    buffer = BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def hidden_tile(side: int = 26_000) -> bytes:
    """A TIFF of 64 x 64 pixels with one tile that is far larger."""
    pixels = zlib.compressobj(1)
    row = bytes(side)
    tile = b"".join(pixels.compress(row) for _ in range(side)) + pixels.flush()
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, side), (323, side), (324, 8), (325, len(tile))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(tile)) + tile + directory + bytes(4)


def empty_boxes(num_bytes: int = 8 * MIB) -> bytes:
    """An AVIF of nothing but boxes without content."""
    meta = struct.pack(">I4sI", 12 + 8 * (num_bytes // 8), b"meta", 0) + struct.pack(">I4s", 8, b"free") * (
        num_bytes // 8
    )
    return struct.pack(">I4s4sI4s", 20, b"ftyp", b"avif", 0, b"avif") + meta


def empty_parts(num_bytes: int = 8 * MIB) -> bytes:
    """A PNG with empty chunks of pixels."""
    png = flat_png(0, 1, 64)
    at = png.index(b"IDAT") - 4
    return png[:at] + png_chunk(b"IDAT", b"") * (num_bytes // 12) + png[at:]


COMMENTS = b"<!---->" * 40 + b"x"
HASHED = base64.b64encode(COMMENTS).decode()


@functools.cache
def attacks(uris: str, *, is_whole: bool) -> tuple[Attack, ...]:
    """uris: base of a hostile server that the endpoint may fetch from. is_whole: those that take long, too."""
    form = f"multipart/form-data; boundary={BOUNDARY}"
    fetched = [{"uri": f"{uris}big/{place}"} for place in range(16)]
    dripped = [{"uri": f"{uris}drip/{place}"} for place in range(16)]
    tiny = {"data": HASHED}
    found: list[tuple[str, Callable[[], bytes], str]] = [
        ("comments of HTML", lambda: multipart([COMMENTS] * 64), form),
        ("an array of zeros", lambda: b'{"images":[' + b"0," * (2 * MIB) + b"0]}", JSON),
        ("empty boxes of an AVIF", lambda: multipart([empty_boxes()] * 7), form),
        ("many scans of a JPEG", lambda: multipart([many_scans()] * 4), form),
        ("large pictures with a palette", lambda: multipart([flat_png(3, 1)] * 64), form),
        (
            "a repeated dimension",
            lambda: json.dumps({"images": [tiny], "dimensions": ["layout"] * 200_000}).encode(),
            JSON,
        ),
        ("large files behind URIs", lambda: json.dumps({"images": fetched}).encode(), JSON),
    ]
    if is_whole:
        found += [
            ("60 MB of zeros", lambda: b'{"images":[' + b"0," * (30 * MIB) + b"0]}", JSON),
            ("60 MB of arrays", lambda: b'{"images":[' + b"[]," * (20 * MIB) + b"0]}", JSON),
            ("empty chunks of a PNG", lambda: multipart([empty_parts()] * 7), form),
            ("a tile larger than its TIFF", lambda: multipart([hidden_tile()] * 8), form),
            ("large pictures with alpha", lambda: multipart([flat_png(6, 4)] * 64), form),
            ("pictures too large to decode", lambda: multipart([flat_webp()] * 64), form),
            ("60 MB of base64", lambda: as_json([bytes(44 * MIB)]), JSON),
            ("servers that drip", lambda: json.dumps({"images": dripped}).encode(), JSON),
        ]
    made = []
    for name, body, kind in found:
        # half a gigabyte at once is what a machine of two cores needs a second to receive, whatever is in it
        connections = 2 if len((made_once := functools.cache(body))()) > 32 * MIB else 8
        made.append(Attack(name, made_once, kind, connections))
    made.append(Attack("bodies that are announced", bytes, connections=200 if is_whole else 8, pace_bytes_s=0))
    if is_whole:
        made.append(Attack("bodies that drip", bytes, connections=64, pace_bytes_s=5))
    return tuple(made)


@contextmanager
def hostile_server() -> Iterator[str]:
    """`big/…` is 100 MB of zeros, `drip/…` a head that never ends; the base URL."""
    stop = threading.Event()

    def say(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while b"drip" in head.partition(b"\r\n")[0] and not stop.wait(0.5):
            connection.sendall(b"X-A: b\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % (100 * MIB))
        for _ in range(100):
            connection.sendall(bytes(MIB))

    with saying(say) as url:
        yield f"{url}/"
        stop.set()
