"""What a rule allows is fetched from where the rule says, within one clock and budget; nothing else is asked for."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from iqa_core.records import Reason, Rejection
from iqa_core.storage.storage import Storage
from serve.admission.places import Places
from serve.errors import Refusal
from serve.fetching.fetcher import NOT_ALLOWED, S3_OPTIONS, Fetcher
from serve.metrics import Metrics
from serve.protocol.bodies import EncodedImage
from serve.settings import ServeSettings
from tests.clock import eventually, wait_for
from tests.corpora import tiny_png
from tests.serve.sites import Say, always, saying
from tests.tls import self_signed

if TYPE_CHECKING:
    from tests.s3_server import Bucket

IMAGE = tiny_png(1)
GIVEN_UP_S = 60
"""Seconds within which a busy machine, too, has given up what goes on for longer."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Caller:
    """Somebody who stays until told to leave, and what the place of the request held in the end."""

    def __init__(self, body_bytes: int = 0, bytes_elsewhere: int = 0) -> None:
        self.body_bytes = body_bytes
        self.bytes_elsewhere = bytes_elsewhere
        self.num_bytes = 0
        self.gone = threading.Event()

    async def receive(self) -> Any:
        while not self.gone.is_set():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}


def chosen(*rules: str, **settings: Any) -> ServeSettings:
    given = {"uri_timeout_s": 120, "max_image_bytes": 100_000, **settings, "uri_allow": rules}
    return ServeSettings.model_validate(given)


def fetched(
    uris: list[str], *rules: str, caller: Caller | None = None, storage: Storage | None = None, **settings: Any
) -> list[bytes | Rejection]:
    """What becomes of the images of one request."""
    caller = caller or Caller()

    async def fetch() -> list[bytes | Rejection]:
        made = chosen(*rules, **settings)
        places = Places(made, Metrics())
        with places.taken("one") as admission, places.taken("one") as other:
            admission.grow(caller.body_bytes)
            other.grow(caller.bytes_elsewhere)
            found = await Fetcher(made, storage).bytes_of(asked_for(uris), admission, caller.receive)
            caller.num_bytes = admission.num_bytes
            return found

    return asyncio.run(fetch())


def asked_for(uris: list[str]) -> list[EncodedImage]:
    return [EncodedImage(None, uri) for uri in uris]


def reason(found: bytes | Rejection) -> Reason | None:
    return found.reason if isinstance(found, Rejection) else None


class Site:
    """Answers by the name at the end of the path, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        self.asked.append(head)
        name = head.split()[1].rsplit(b"/")[-1].decode()
        lines = {"redirect": b"302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/", "missing": b"404 No"}
        lines |= {
            "secret": b"403 No",
            "broken": b"500 No",
            "gone": b"410 No",
            "partial": b"206 Some",
            "early": b"200 OK",
        }
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" if name == "early" else b"")
        body = bytes(200_000) if name == "huge" else IMAGE
        length = len(body) * (2 if name == "cut" else 1)
        connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (lines.get(name, b"200 OK"), length) + body)


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Site, str]]:
    found = Site()
    with saying(found) as url:
        yield found, url


def test_an_allowed_uri_is_fetched(site: tuple[Site, str]) -> None:
    asked, url = site
    assert fetched([f"{url}/made/a.png?seed=3", f"{url}/made/early"], f"{url}/made/") == [IMAGE, IMAGE]
    head = next(head for head in asked.asked if b"seed" in head).decode()
    assert head.startswith("GET /made/a.png?seed=3 HTTP/1.1\r\n")
    assert f"host: {url.removeprefix('http://')}\r\n" in head.lower()


REASONS = {
    "missing": Reason.MISSING,
    "gone": Reason.MISSING,
    "secret": Reason.FORBIDDEN,
    "broken": Reason.FETCH_FAILED,
    "partial": Reason.FETCH_FAILED,
    "redirect": Reason.FETCH_FAILED,
    "cut": Reason.FETCH_FAILED,
    "huge": Reason.TOO_LARGE,
}


def test_what_cannot_be_had_is_a_rejection_that_tells_no_address(site: tuple[Site, str]) -> None:
    _, url = site
    found = fetched([f"{url}/made/{name}" for name in REASONS], f"{url}/made/")
    assert [reason(one) for one in found] == list(REASONS.values())
    assert not any("127.0.0.1" in str(one) or "169.254" in str(one) for one in found)


URIS = """file:///etc/passwd /etc/passwd data:,x gopher://127.0.0.1/ ftp://images.example.org/made/a.png
File:///etc/passwd s3://other/made/a.png s3://bucket/made-by-others/a.png s3://bucket/made/../secret.png
S3://other/made/a.png file:/etc/passwd SITE/other/a.png SITE/made SITE/made/../secret SITE/made/..%2fsecret
SITE/made/%2e%2e/secret SITE/made/%252e%252e/secret SITE/made/..\\secret SITE/made/./a.png SITE/made/a.png#x
SITE/made/%0d%0aHost:%20evil SITE/made/..;/secret http://user@HOST/made/a.png http://HOST@169.254.169.254/made/a.png
http://localhost:PORT/made/a.png http://127.1:PORT/made/a.png http://2130706433:PORT/made/a.png
http://0x7f000001:PORT/made/a.png http://[::1]:PORT/made/a.png http://[::ffff:127.0.0.1]:PORT/made/a.png
http://169.254.169.254/latest/meta-data/ http://127.0.0.1:1/made/a.png https://HOST/made/a.png HTTPS://HOST/made/a.png
zip://a.png::SITE/made/a.zip http://[bad/made/a.png http://HOST:99999/made/a.png http://HOST:port/made/a.png
http:///made/a.png
""".split()
ODD = ["", "SITE/made/a b.png", "SITE/made/a\r\nHost: evil/b.png", "SITE/made/" + "a" * 5000, "SITE/made/\u00e9.png"]


def test_whatever_no_rule_names_is_not_asked_for(site: tuple[Site, str]) -> None:
    asked, url = site
    host = url.removeprefix("http://")
    uris = [
        uri.replace("SITE", url).replace("HOST", host).replace("PORT", host.partition(":")[2]) for uri in URIS + ODD
    ]
    before = len(asked.asked)
    assert fetched(uris, f"{url}/made/", "s3://bucket/made/") == [NOT_ALLOWED] * len(uris)
    assert fetched([*uris, f"{url}/made/a.png"]) == [NOT_ALLOWED] * (len(uris) + 1)
    assert len(asked.asked) == before


def test_a_name_that_leads_inside_is_refused_even_if_a_rule_names_it(site: tuple[Site, str]) -> None:
    asked, url = site
    port = url.rsplit(":", 1)[1]
    before = len(asked.asked)
    assert fetched([f"http://localhost:{port}/made/a.png"], f"http://localhost:{port}/made/") == [NOT_ALLOWED]
    hostname = socket.gethostname()
    if hostname.isascii() and hostname == hostname.lower():
        rule = f"http://{hostname}:{port}/made/"
        [found] = fetched([f"{rule}a.png"], rule, uri_timeout_s=5)
        assert reason(found) in (Reason.FORBIDDEN, Reason.FETCH_FAILED)  # its address is private, or not known
    assert len(asked.asked) == before


def test_https_is_spoken_with_whom_an_authority_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    with saying(always(HEAD % len(IMAGE) + IMAGE), certificate) as url:
        [found] = fetched([f"{url}/made/a.png"], f"{url}/made/")
        assert found == Rejection(Reason.FETCH_FAILED, "it cannot be fetched: a TLS failure")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetched([f"{url}/made/a.png"], f"{url}/made/") == [IMAGE]


def dripping(*parts: bytes, drop: bytes) -> Say:
    """The parts at once, then `drop` ten times a second for two minutes."""

    def say(connection: socket.socket, head: bytes) -> None:
        for part in (*parts, *[drop] * 1200):
            connection.sendall(part)
            time.sleep(0.1 if part is drop else 0)

    return say


def hanging(connection: socket.socket, head: bytes) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    "say",
    [
        dripping(b"HTTP/1.1 200 OK\r\n", drop=b"X-A: b\r\n"),
        dripping(b"HTTP/1.1 ", drop=b"2"),
        dripping(drop=b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        dripping(HEAD % 1000, drop=b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", drop=b"1\r\nx\r\n"),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", drop=b"X-A: b\r\n"),
        hanging,
    ],
)
def test_one_clock_runs_over_all_that_a_server_does(say: Say) -> None:
    with saying(say) as url:
        began = time.monotonic()
        [found] = fetched([f"{url}/made/a.png"], f"{url}/made/", uri_timeout_s=0.2)
    assert reason(found) == Reason.FETCH_FAILED
    assert time.monotonic() - began < GIVEN_UP_S


def test_the_clock_runs_over_a_handshake_and_a_connection_too() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as mute:  # takes connections, and says nothing
        url = f"https://127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        found = fetched([f"{url}/made/{i}.png" for i in range(4)], f"{url}/made/", uri_timeout_s=0.2)
    assert {reason(one) for one in found} == {Reason.FETCH_FAILED}
    assert time.monotonic() - began < GIVEN_UP_S


def test_images_that_do_not_fit_into_one_request_are_too_large_and_the_others_are_there() -> None:
    """16 of 100 MB took 2 GB; here they have 1 MB, and a request 4."""
    caller = Caller()
    with saying(always(HEAD % 2**20 + bytes(2**20))) as url:
        tracemalloc.start()
        found = fetched(
            [f"{url}/made/{i}.png" for i in range(16)],
            f"{url}/made/",
            caller=caller,
            max_image_bytes=2**20,
            max_body_bytes=4 * 2**20,
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [reason(one) for one in found].count(None) == 4
    assert [reason(one) for one in found].count(Reason.TOO_LARGE) == 12
    assert caller.num_bytes == 4 * 2**20
    assert peak < 12 * 2**20  # what is kept, one image twice, and 0.2 MB on the way to each


def test_what_is_not_announced_is_counted_as_it_comes() -> None:
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 16 + b"0\r\n\r\n"
    settings: dict[str, Any] = {"max_image_bytes": 2**20, "max_body_bytes": 4 * 2**20}
    with saying(always(body)) as url:
        rule = f"{url}/made/"
        found = fetched([f"{rule}{i}.png" for i in range(6)], rule, max_fetches=1, **settings)
        assert [reason(one) for one in found] == [None] * 4 + [Reason.TOO_LARGE] * 2
        [found_alone] = fetched([f"{rule}a.png"], rule, **{**settings, "max_image_bytes": 2**20 - 1})
        assert reason(found_alone) == Reason.TOO_LARGE


def test_a_body_counts_too_and_a_caller_with_too_much_elsewhere_is_told_to_come_back() -> None:
    settings: dict[str, Any] = {"max_body_bytes": 100_000, "max_pending_bytes": 200_000}
    with saying(always(HEAD % 30_000 + bytes(30_000))) as url:
        uris = [f"{url}/made/{i}.png" for i in range(4)]
        caller = Caller(body_bytes=30_000)
        found = fetched(uris, f"{url}/made/", caller=caller, **settings)
        assert [reason(one) for one in found].count(Reason.TOO_LARGE) == 2
        assert caller.num_bytes == 90_000
        with pytest.raises(Refusal) as caught:
            fetched(uris, f"{url}/made/", caller=Caller(bytes_elsewhere=50_000), **settings)
        assert caught.value.status == 429


def test_no_more_are_fetched_at_once_for_one_caller_than_half_of_what_the_settings_say() -> None:
    now, most = [0], [0]
    lock = threading.Lock()
    three = threading.Barrier(3)

    def say(connection: socket.socket, head: bytes) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        three.wait(60)
        time.sleep(0.02)  # for a fourth to come, were it allowed
        with lock:
            now[0] -= 1
        connection.sendall(HEAD % len(IMAGE) + IMAGE)

    with saying(say) as url:
        assert fetched([f"{url}/made/{i}" for i in range(9)], f"{url}/made/", max_fetches=6) == [IMAGE] * 9
    assert most == [3]


def test_a_caller_whose_servers_hang_keeps_no_other_waiting() -> None:
    asked: list[bytes] = []

    def hang(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        connection.recv(1)

    async def fetch(slow: str, quick: str) -> None:
        made = chosen(f"{slow}/made/", f"{quick}/made/", max_fetches=4)
        fetcher, places, there = Fetcher(made), Places(made, Metrics()), Caller()
        with places.taken("one") as one, places.taken("other") as other:
            hung = asyncio.ensure_future(
                fetcher.bytes_of(asked_for([f"{slow}/made/{i}" for i in range(9)]), one, there.receive)
            )
            await eventually(lambda: len(asked) == 2)
            images = asked_for([f"{quick}/made/{i}" for i in range(9)])
            async with asyncio.timeout(60):  # half of what the hanging ones have
                assert await fetcher.bytes_of(images, other, there.receive) == [IMAGE] * 9
            hung.cancel()

    with saying(hang) as slow, saying(always(HEAD % len(IMAGE) + IMAGE)) as quick:
        asyncio.run(fetch(slow, quick))


def test_fetches_end_when_the_caller_leaves() -> None:
    caller = Caller()
    all_three = threading.Barrier(3, action=caller.gone.set)
    closed = threading.Semaphore(0)

    def say(connection: socket.socket, head: bytes) -> None:
        all_three.wait(60)
        with suppress(ConnectionResetError):
            connection.recv(1)
        closed.release()

    with saying(say) as url:
        with pytest.raises(Refusal, match="the caller left"):
            fetched([f"{url}/made/{i}" for i in range(3)], f"{url}/made/", caller=caller)
        for _ in range(3):
            assert closed.acquire(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counted as Linux tells it")
def test_nothing_is_left_open() -> None:
    def num_open() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    with saying(always(HEAD % 10 + IMAGE)) as url:
        uris = [f"{url}/made/{i}" for i in range(3)]
        fetched(uris, f"{url}/made/")
        before = num_open()
        for _ in range(10):
            fetched(uris, f"{url}/made/")
        wait_for(lambda: num_open() <= before)  # the server's threads close their ends when they come to it


@pytest.mark.s3
def test_an_object_is_fetched_where_a_rule_allows_it(s3: Bucket) -> None:
    from tests.s3_server import storage_options  # here, not above: moto takes a second

    s3.put_all({"made/a.png": IMAGE, "made-by-others/a.png": IMAGE, "made/huge.png": bytes(200_000), "made/none": b""})
    rule = f"s3://{s3.name}/made/"
    storage = Storage({**S3_OPTIONS, **storage_options(s3.endpoint)})
    names = ["made/a.png", "made/missing.png", "made/huge.png", "made-by-others/a.png", "made/none"]
    found = fetched([s3.uri(name) for name in names], rule, storage=storage)
    assert found[0] == IMAGE
    assert [reason(one) for one in found[1:4]] == [Reason.MISSING, Reason.TOO_LARGE, Reason.FORBIDDEN]
    assert found[3:] == [NOT_ALLOWED, b""]
    # a rule's letters are small: what it names is what is asked for, however a caller writes it
    written = [f"S3://{s3.name}/made/a.png", f"s3://{s3.name.upper()}/made/a.png"]
    assert fetched(written, rule, storage=storage) == [IMAGE, IMAGE]
    # two of three fit beside each other
    s3.put_all({f"made/{i}.bin": bytes(90_000) for i in range(3)})
    caller = Caller()
    found = fetched(
        [s3.uri(f"made/{i}.bin") for i in range(3)], rule, storage=storage, caller=caller, max_body_bytes=200_000
    )
    assert [reason(one) for one in found].count(Reason.TOO_LARGE) == 1
    assert caller.num_bytes == 180_000


@pytest.mark.s3
@pytest.mark.parametrize(
    "say",
    [hanging, dripping(b"HTTP/1.1 200 OK\r\n", drop=b"X-A: b\r\n"), dripping(HEAD % 1000, drop=b"x")],
)
def test_a_store_that_hangs_or_drips_is_given_up_in_time(say: Say) -> None:
    with saying(say) as url:
        storage = Storage({**S3_OPTIONS, "endpoint_url": url, "key": "test-access-key", "secret": "x"})
        fetched(["s3://bucket/made/a"], "s3://bucket/made/", storage=storage, uri_timeout_s=0.1)  # s3fs is imported
        began = time.monotonic()
        found = fetched(
            [f"s3://bucket/made/{i}" for i in range(3)], "s3://bucket/made/", storage=storage, uri_timeout_s=0.3
        )
    assert {reason(one) for one in found} == {Reason.FETCH_FAILED}
    assert time.monotonic() - began < GIVEN_UP_S
