"""Encoded images -> what they are and their pixels, as in this process; what takes too much -> its own rejection.

Tests serve/decoding/decoder.py and serve/decoding/template.py.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from PIL import Image

from iqa_core.assessor.fake import FakeOptions, FakePreparer
from iqa_core.images import preparing
from iqa_core.records import ImageHeader, ImageLimits, PreparedShape, Preparer, Reason, Rejection
from serve.decoding.decoder import ANSWER, OWN_BYTES, PIXELS, PROBED, REJECTED
from serve.decoding.decoders import FAILED_IN_A_ROW, Decoders, DecodersDown
from serve.decoding.groups import Probed
from serve.decoding.template import Template
from tests.bad_images import bad_images, encoded, exif_with_orientation
from tests.clock import wait_for
from tests.serve import local
from tests.serve.local import TEMPLATE, asking

pytestmark = pytest.mark.slow

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[3]
TOO_MUCH = Rejection(Reason.CORRUPT, "decoding it crashed or exceeded its time or memory")
EXITS, HANGS = "ff0000", "0000ff"
MISBEHAVING = FakePreparer(ImageLimits(), FakeOptions(prepare_exit_on=EXITS, prepare_hang_on=HANGS))


def png(colour: str, side: int = 16) -> bytes:
    return encoded(Image.new("RGB", (side, side), f"#{colour}"), "PNG")


@functools.cache
def slow_jpeg() -> bytes:
    """100 kB that keep a decoder for a fifth of a second: each scan goes over all pixels anew."""
    return encoded(Image.new("L", (4000, 4000), 77), "JPEG", progressive=True)


def with_decoders(test: Callable[[Decoders], Awaitable[T]], count: int = 2, timeout_s: float = 5) -> T:
    async def run() -> T:
        return await test(Decoders(TEMPLATE, count, timeout_s))

    return asyncio.run(run())


async def prepared(decoders: Decoders, data: bytes, preparer: Preparer = MISBEHAVING) -> Any:
    found = await decoders.probe(data, preparer)
    return found if isinstance(found, Rejection) else await decoders.prepare(found, preparer)


def processes() -> list[psutil.Process]:
    """Of the template and its decoders, without those that nobody has waited for."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # ended since it was listed
            if process.status() != psutil.STATUS_ZOMBIE and "serve.decoding.decoder" in process.cmdline():
                found.append(process)
    return found


def files() -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(ROOT / "tests" / "data" / "sound_images.zip") as sound:
        yield from ((name, sound.read(name)) for name in sound.namelist())
    yield from ((image.name, image.data) for image in bad_images())


def test_every_file_is_found_and_prepared_as_in_this_process() -> None:
    async def test(decoders: Decoders) -> None:
        for name, data in files():
            found, expected = await decoders.probe(data, MISBEHAVING), preparing.probe(data, MISBEHAVING)
            assert found == (expected if isinstance(expected, Rejection) else Probed.of(data, expected.probe)), name
            if isinstance(found, Probed):
                pixels, in_process = await decoders.prepare(found, MISBEHAVING), preparing.prepare(data, MISBEHAVING)
                assert type(pixels) is type(in_process), name
                np.testing.assert_equal(pixels, in_process, name)

    with_decoders(test)


def test_an_image_that_ends_its_process_is_tried_twice_and_costs_nobody_else_anything() -> None:
    async def test(decoders: Decoders) -> None:
        await decoders.ready(MISBEHAVING)
        images = [png(EXITS), png("ffffff"), png(EXITS), png("0f0f0f")]
        found = await asyncio.gather(*(prepared(decoders, image) for image in images))
        assert [one if isinstance(one, Rejection) else one[0, 0, 0] for one in found] == [TOO_MUCH, 255, TOO_MUCH, 15]

    with_decoders(test)


def test_when_every_image_ends_its_process_it_is_not_the_images() -> None:
    async def test(decoders: Decoders) -> None:
        found = await decoders.probe(png(EXITS), MISBEHAVING)
        assert isinstance(found, Probed)
        for _ in range(FAILED_IN_A_ROW - 1):
            assert await decoders.prepare(found, MISBEHAVING) == TOO_MUCH
        with pytest.raises(DecodersDown, match="16 images in a row"):
            await decoders.prepare(found, MISBEHAVING)
        assert (await prepared(decoders, png("ffffff"))).shape == (16, 16, 3)
        assert await decoders.prepare(found, MISBEHAVING) == TOO_MUCH

    with_decoders(test)


def test_an_image_that_never_ends_is_given_up_after_one_try() -> None:
    async def test(decoders: Decoders) -> None:
        began = time.monotonic()
        found = await asyncio.gather(*(prepared(decoders, png(colour)) for colour in (HANGS, HANGS, "ffffff")))
        assert found[:2] == [TOO_MUCH, TOO_MUCH]
        assert found[2].shape == (16, 16, 3)
        assert 1.5 <= time.monotonic() - began < 60

    with_decoders(test, timeout_s=0.25)


def test_time_of_the_cpu_is_limited_by_the_process_itself(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.decoding.decoders.WALL_SECONDS", 1000.0)

    async def test(decoders: Decoders) -> None:
        assert await prepared(decoders, slow_jpeg()) == TOO_MUCH

    with_decoders(test, timeout_s=0.1)


def test_memory_beyond_what_an_image_was_granted_is_refused_to_it() -> None:
    data = encoded(Image.new("RGBA", (3000, 3000)), "PNG", compress_level=1)

    async def test(decoders: Decoders) -> None:
        found = await decoders.probe(data, MISBEHAVING)
        assert isinstance(found, Probed)
        assert (await decoders.prepare(found, MISBEHAVING)).shape == (3000, 3000, 3)  # type: ignore[union-attr]
        lying = Probed(data, ImageHeader(8, 8, "png", 1), PreparedShape(8, 8, 1), 64)
        assert await decoders.prepare(lying, MISBEHAVING) == TOO_MUCH
        assert await prepared(decoders, png("ffffff")) is not TOO_MUCH

    with_decoders(test, count=1)


def test_a_file_may_have_more_bytes_than_a_decoder_has_by_itself() -> None:
    large = b"x" * (OWN_BYTES + 2**24)

    async def test(decoders: Decoders) -> None:
        assert (await prepared(decoders, png("ffffff"))).shape == (16, 16, 3)
        before = {process.pid for process in processes()}
        assert await decoders.probe(large, MISBEHAVING) == preparing.probe(large, MISBEHAVING)
        assert {process.pid for process in processes()} == before

    with_decoders(test, count=1)


def test_nothing_is_kept_of_an_image_that_was_answered() -> None:
    async def test(decoders: Decoders) -> None:
        sizes = []
        for side in (16, 3000, 16):  # 27 MB of pixels in between
            assert (await prepared(decoders, png("ffffff", side))).shape == (side, side, 3)
            sizes.append(sum(process.memory_info().rss for process in processes()))
        assert sizes[2] - sizes[0] < 16e6

    with_decoders(test, count=1)


def test_a_caller_who_leaves_ends_the_decoder_that_is_at_his_image() -> None:
    async def test(decoders: Decoders) -> None:
        await decoders.ready(MISBEHAVING)
        before = {process.pid for process in processes()}
        asking = asyncio.create_task(prepared(decoders, png(HANGS)))
        waiting = asyncio.create_task(prepared(decoders, png(HANGS)))
        await asyncio.sleep(0.1)  # the decoder is at an image of his, whichever it has come to
        for task in (waiting, asking):
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        assert len(before - {process.pid for process in processes()}) == 1
        assert (await prepared(decoders, png("ffffff"))).shape == (16, 16, 3)

    with_decoders(test, count=1)


def test_another_models_preparer_gets_decoders_of_its_own() -> None:
    other = FakePreparer(ImageLimits(min_side=32), FakeOptions())

    async def test(decoders: Decoders) -> None:
        for _ in range(2):
            found = await asyncio.gather(
                *(prepared(decoders, png("ffffff"), preparer) for preparer in (MISBEHAVING, other, other))
            )
            assert [isinstance(one, Rejection) for one in found] == [False, True, True]

    with_decoders(test)


def test_when_the_template_is_gone_another_is_started_and_no_image_is_blamed() -> None:
    template = Template()

    async def test() -> None:
        decoders = Decoders(template, 2, 5)
        await decoders.ready(MISBEHAVING)
        found = asyncio.create_task(prepared(decoders, png("ffffff")))
        for process in processes():
            if process.ppid() == os.getpid():
                process.kill()
        assert (await found).shape == (16, 16, 3)
        assert (await prepared(decoders, png("ffffff"))).shape == (16, 16, 3)
        await decoders.ready(MISBEHAVING)

    asyncio.run(test())
    template.close()


def test_what_cannot_be_started_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "TEMPLATE", Template())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def test() -> None:
        with pytest.raises(DecodersDown, match="/nowhere/python"):
            await Decoders(local.TEMPLATE, 2, 5).ready(MISBEHAVING)
        with pytest.raises(OSError, match="/nowhere/python"):
            local.TEMPLATE.check(MISBEHAVING)
        async with asking() as client:
            assert (await client.get("/readyz")).status_code == 503
            answer = await client.post("/v1/assess", files=[("images", png("ffffff"))])
            assert answer.status_code == 503
            assert "no process that decodes can be started" in answer.json()["error"]["message"]
            monkeypatch.undo()
            while (await client.get("/readyz")).status_code != 200:  # it waits 2 s at a time
                pass

    asyncio.run(test())


class Hostile(Template):
    """Decoders that have been taken over by an image: they answer what they like."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    async def fork(self, preparer: Preparer) -> tuple[socket.socket, int]:
        mine, theirs = socket.socketpair()
        mine.setblocking(False)

        def answer() -> None:
            with theirs:
                theirs.recv(2**16)
                theirs.sendall(self._answer)

        threading.Thread(target=answer).start()
        return mine, 0


def json_answer(kind: bytes, text: bytes) -> bytes:
    return ANSWER.pack(kind, len(text), 0, 0) + text


HEADER = b'{"width": 8, "height": 8, "format": "png", "frames": 1}'


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 5,
        ANSWER.pack(PIXELS, 192, 8, 8) + bytes(191),
        ANSWER.pack(PIXELS, 192, 8, 8) + bytes(193),
        ANSWER.pack(PIXELS, 192, 64, 1) + bytes(192),
        ANSWER.pack(PIXELS, 0, 8, 8),
        ANSWER.pack(PIXELS, 2**63, 8, 8),
        json_answer(
            PROBED, b'{"header": %s, "shape": {"height": 8, "width": 8, "tokens": 1}, "peak_bytes": 64}' % HEADER
        ),
        json_answer(REJECTED, b"{"),
        json_answer(REJECTED, b'{"reason": "nice", "detail": "", "header": null}'),
        json_answer(REJECTED, b'{"reason": "corrupt", "detail": 5, "header": null}'),
        json_answer(REJECTED, b'{"reason": "corrupt", "detail": "%s", "header": null}' % (b"x" * 20_000)),
        json_answer(b"?", b"{}"),
    ],
)
def test_what_no_decoder_says_is_not_believed(answer: bytes) -> None:
    async def test() -> None:
        decoders = Decoders(Hostile(answer), 1, 5)
        image = Probed(b"", ImageHeader(8, 8, "png", 1), PreparedShape(8, 8, 1), 64)
        assert await decoders.prepare(image, MISBEHAVING) == TOO_MUCH

    asyncio.run(test())


@pytest.mark.parametrize(
    ("header", "shape"),
    [
        ((8, 8, "png", 1), (8, 8, -1)),
        ((-8, -8, "png", 1), (8, 8, 1)),
        ((8, 8, "png", 0), (8, 8, 1)),
        ((20_000, 20_000, "png", 1), (8, 8, 1)),
        ((8, 8, "png", 1), (30_000, 30_000, 1)),
        ((8, 8, 5, 1), (8, 8, 1)),
        ((8, 8.5, "png", 1), (8, 8, 1)),
    ],
)
def test_no_header_is_believed_that_none_can_have(header: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    found = {
        "header": dict(zip(("width", "height", "format", "frames"), header, strict=True)),
        "shape": dict(zip(("height", "width", "tokens"), shape, strict=True)),
        "peak_bytes": 192,
    }

    async def test() -> None:
        decoders = Decoders(Hostile(json_answer(PROBED, json.dumps(found).encode())), 1, 5)
        assert await decoders.probe(b"", MISBEHAVING) == TOO_MUCH

    asyncio.run(test())


def sockets_of(process: Path) -> set[str]:
    """process: its folder under /proc."""
    opened = set()
    for path in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            opened.add(os.readlink(path))
    return {name for name in opened if name.startswith("socket:")}


def test_a_decoder_has_no_secrets_and_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    template = Template()
    monkeypatch.setenv("IQA_API_TOKENS", "correct-horse-battery")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse-battery")

    async def test() -> None:
        connection, pid = await template.fork(MISBEHAVING)
        with connection:
            process = Path("/proc") / str(pid)
            assert b"correct-horse" not in (process / "environ").read_bytes()
            assert not {"torch", "_raylet"} & set((process / "maps").read_text().split("/"))
            wait_for(lambda: len(sockets_of(process)) == 1)  # a fork is told of before it has begun
            assert "Max core file size        0" in (process / "limits").read_text()
        assert await template.end(pid) in (0, -signal.SIGKILL)
        assert await template.end(pid) == 0

    asyncio.run(test())
    template.close()


INGRESS = """
import asyncio, psutil, sys
from iqa_core.assessor.fake import FakeOptions, FakePreparer
from iqa_core.records import ImageLimits
from serve.decoding.decoders import Decoders
from serve.decoding.template import Template

async def main():
    preparer = FakePreparer(ImageLimits(), FakeOptions(prepare_hang_on="{colour}"))
    decoders = Decoders(Template(), 2, 600)
    found = await decoders.probe(bytes.fromhex("{image}"), preparer)
    hanging = [asyncio.create_task(decoders.prepare(found, preparer)) for _ in range(2)]
    while len(processes := psutil.Process().children(recursive=True)) < 3:
        await asyncio.sleep(0.02)
    print(*(process.pid for process in processes), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
def test_decoders_end_with_their_ingress_whatever_they_are_at() -> None:
    script = INGRESS.format(colour=HANGS, image=png(HANGS).hex())
    ingress = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert ingress.stdout is not None
    pids = [int(pid) for pid in ingress.stdout.readline().split()]
    assert len(pids) == 3
    ingress.kill()
    ingress.communicate()
    wait_for(lambda: not [pid for pid in pids if psutil.pid_exists(pid)])


@pytest.mark.parametrize(("hanging", "cpu_s", "wall_s"), [("a preparer", 0.25, 1.5), ("a decoder", 0.1, 60)])
def test_images_that_take_too_long_take_no_decoder_for_ever(
    hanging: str, cpu_s: float, wall_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs is ended by the clock, what works by the CPU's: a good image is ended by neither."""
    bad = png(HANGS) if hanging == "a preparer" else slow_jpeg()
    monkeypatch.setattr("serve.decoding.decoders.WALL_SECONDS", wall_s / cpu_s)
    settings = {"decoders": 4, "decode_timeout_s": cpu_s, "assessor": {"checkpoint": f"fake:?prepare_hang_on={HANGS}"}}

    async def test() -> None:
        async with asking(**settings) as client:
            images = [bad, bad, png("ffffff"), bad, bad]
            answer = await client.post("/v1/assess", files=[("images", image) for image in images])
            results = answer.json()["results"]
            assert [result["status"] for result in results] == 2 * ["rejected"] + ["scored"] + 2 * ["rejected"]
            assert {result["reason"] for result in results if result["status"] == "rejected"} == {"corrupt"}
            answer = await client.post("/v1/assess", files=[("images", png("ffffff"))])
            assert answer.json()["results"][0]["status"] == "scored"

    asyncio.run(test())


SIDE = 6_000


def large_images() -> Iterator[tuple[str, bytes]]:
    """36 million pixels in each kind of mode and format: 64 MiB, which are a decoder's own, are 2 bytes of each."""
    grey = Image.linear_gradient("L").resize((SIDE, SIDE))
    rgb = Image.merge("RGB", [grey, grey.transpose(Image.Transpose.ROTATE_90), grey])
    rgba = rgb.copy()
    rgba.putalpha(grey)
    palette = rgb.quantize(64, Image.Quantize.FASTOCTREE)
    yield "jpeg", encoded(rgb, "JPEG")
    yield "jpeg, progressive", encoded(rgb, "JPEG", progressive=True, subsampling=0)
    yield "jpeg, turned", encoded(rgb, "JPEG", exif=exif_with_orientation(6))
    yield "jpeg, CMYK", encoded(rgb.convert("CMYK"), "JPEG")
    for mode in ("L", "LA", "RGB", "RGBA"):
        yield f"png, {mode}", encoded(rgba.convert(mode), "PNG", compress_level=1)
    yield "png, palette", encoded(palette, "PNG", compress_level=1)
    yield "png, palette and key", encoded(palette, "PNG", compress_level=1, transparency=3)
    yield "png, 16-bit", encoded(grey.convert("I;16"), "PNG", compress_level=1)
    yield "webp, lossless", encoded(rgba, "WEBP", lossless=True, quality=0, method=0)
    yield "webp", encoded(rgb, "WEBP", method=0)
    yield "gif", encoded(palette, "GIF")
    yield "bmp", encoded(rgb, "BMP")
    yield "tiff", encoded(rgba, "TIFF", compression="tiff_lzw")
    yield "avif", encoded(rgb, "AVIF", speed=10)
    runs = (b"\xff\x01" * (SIDE // 255) + bytes([SIDE % 255, 1]) + b"\0\0") * SIDE + b"\0\1"
    head = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 0, 0, 1078, 40, SIDE, SIDE, 1, 8, 1, 0, 0, 0, 256, 0)
    yield "bmp, in runs", head + bytes(1024) + runs


@pytest.mark.chaos
def test_a_large_image_of_any_kind_has_the_time_and_memory_that_it_needs() -> None:
    async def test(decoders: Decoders) -> None:
        for name, data in large_images():
            assert not isinstance(found := await prepared(decoders, data), Rejection), (name, found)

    with_decoders(test)


def test_a_finalizer_inside_submit_waits_for_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may run one anywhere, as here while the thread that submits holds the locks of it."""
    template, make = Template(), Future.__init__

    def making(future: Future[Any]) -> None:
        if threading.current_thread() is submitting:
            template.end_soon([1])
        make(future)

    monkeypatch.setattr(Future, "__init__", making)
    submitting = threading.Thread(target=lambda: template._thread.submit(int), daemon=True)
    submitting.start()
    submitting.join(30)
    assert not submitting.is_alive()
