"""Nothing is fetched but what a rule names, from where the rule says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from iqa_core.corpus.storage import Storage
from iqa_core.records import ImageLimits, Reason, Rejection
from serve.fetching import NOT_ALLOWED, fetch_allowed, is_public
from serve.uris import FetchableUri, UriRule
from tests.corpora import tiny_png

if TYPE_CHECKING:
    from tests.s3_server import Bucket

LIMITS = ImageLimits(max_bytes=100_000)


class Site(BaseHTTPRequestHandler):
    """Notes what it is asked for."""

    asked: ClassVar[list[str]] = []
    image = tiny_png(1)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rsplit("/", 1)[1]
        statuses = {"redirect": 302, "missing": 404, "secret": 403, "broken": 500}
        self.send_response(statuses.get(name, 200))
        body = self.image if name != "huge" else bytes(200_000)
        if name == "redirect":
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
        self.send_header("Content-Length", str(len(body) * (2 if name == "cut" else 1)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetched(uri: str, *rules: str) -> bytes | Rejection:
    return fetch_allowed(uri, tuple(map(UriRule.parse, rules)), LIMITS, Storage(), 5)


def reason(found: bytes | Rejection) -> Reason | None:
    return found.reason if isinstance(found, Rejection) else None


def test_an_allowed_uri_is_fetched(site: str) -> None:
    assert fetched(f"{site}/made/a.png?seed=3", f"{site}/made/") == Site.image
    assert Site.asked[-1] == "/made/a.png?seed=3"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", Reason.MISSING),
        ("secret", Reason.FORBIDDEN),
        ("broken", Reason.FETCH_FAILED),
        ("redirect", Reason.FETCH_FAILED),
        ("cut", Reason.FETCH_FAILED),
        ("huge", Reason.TOO_LARGE),
    ],
)
def test_what_cannot_be_had_is_a_rejection(site: str, name: str, expected: Reason) -> None:
    assert reason(fetched(f"{site}/made/{name}", f"{site}/made/")) == expected


def test_details_tell_no_addresses(site: str) -> None:
    for name in ("redirect", "cut", "broken"):
        found = fetched(f"{site}/made/{name}", f"{site}/made/")
        assert isinstance(found, Rejection)
        assert "127.0.0.1" not in found.detail
        assert "169.254" not in found.detail


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "data:,x",
        "gopher://127.0.0.1/",
        "ftp://images.example.org/made/a.png",
        "s3://other/made/a.png",
        "s3://bucket/made-by-others/a.png",
        "s3://bucket/made/../secret.png",
        "SITE/other/a.png",
        "SITE/made",
        "SITE/made/../secret",
        "SITE/made/..%2fsecret",
        "SITE/made/%2e%2e/secret",
        "SITE/made/%252e%252e/secret",
        "SITE/made/..\\secret",
        "SITE/made/./a.png",
        "SITE/made/a.png#x",
        "SITE/made/a b.png",
        "SITE/made/a\r\nHost: evil/b.png",
        "SITE/made/%0d%0aHost:%20evil",
        "http://user@HOST/made/a.png",
        "http://HOST@169.254.169.254/made/a.png",
        "http://localhost:PORT/made/a.png",
        "http://127.1:PORT/made/a.png",
        "http://2130706433:PORT/made/a.png",
        "http://[::1]:PORT/made/a.png",
        "http://[::ffff:127.0.0.1]:PORT/made/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/made/a.png",
        "https://HOST/made/a.png",
        "HTTPS://HOST/made/a.png",
        "File:///etc/passwd",
        "file:/etc/passwd",
        "S3://other/made/a.png",
        "zip://a.png::SITE/made/a.zip",
        "http://[bad/made/a.png",
        "http://HOST:99999/made/a.png",
        "http://HOST:port/made/a.png",
        "http:///made/a.png",
        "",
        "http://" + "a" * 5000,
    ],
)
def test_whatever_no_rule_names_is_not_asked_for(site: str, uri: str) -> None:
    host = site.removeprefix("http://")
    uri = uri.replace("SITE", site).replace("HOST", host).replace("PORT", host.partition(":")[2])
    before = len(Site.asked)
    assert fetched(uri, f"{site}/made/", "s3://bucket/made/") == NOT_ALLOWED
    assert fetched(uri) == NOT_ALLOWED
    assert len(Site.asked) == before


def test_a_name_that_leads_inside_is_refused_even_if_a_rule_names_it(site: str) -> None:
    port = site.rsplit(":", 1)[1]
    before = len(Site.asked)
    assert fetched(f"http://localhost:{port}/made/a.png", f"http://localhost:{port}/made/") == NOT_ALLOWED
    hostname = socket.gethostname()
    if hostname.isascii() and hostname == hostname.lower():
        found = fetched(f"http://{hostname}:{port}/made/a.png", f"http://{hostname}:{port}/made/")
        assert reason(found) in (Reason.FORBIDDEN, Reason.FETCH_FAILED)  # its address is private, or not known
    assert len(Site.asked) == before


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.s3
def test_an_object_is_fetched_where_a_rule_allows_it(s3: Bucket) -> None:
    from tests.s3_server import storage_options  # here, not above: moto takes a second

    image = tiny_png(2)
    s3.put_all({"made/a.png": image, "made-by-others/a.png": image, "made/huge.png": bytes(200_000)})
    rules = (UriRule.parse(f"s3://{s3.name}/made/"),)
    storage = Storage(storage_options(s3.endpoint))

    def found(key: str) -> bytes | Rejection:
        return fetch_allowed(s3.uri(key), rules, LIMITS, storage, 5)

    assert found("made/a.png") == image
    assert reason(found("made/none.png")) == Reason.MISSING
    assert reason(found("made/huge.png")) == Reason.TOO_LARGE
    assert found("made-by-others/a.png") == NOT_ALLOWED
    # a rule's letters are small: what it names is what is asked for, however a caller writes it
    for uri in (f"S3://{s3.name}/made/a.png", f"s3://{s3.name.upper()}/made/a.png"):
        assert fetch_allowed(uri, rules, LIMITS, storage, 5) == image


def test_the_uri_of_an_object_is_a_bucket_and_a_key() -> None:
    assert FetchableUri.parse("s3://bucket/made/a.png") == FetchableUri("s3", "bucket", 0, "/made/a.png")
    assert FetchableUri.parse("s3://bucket:1/made/a.png") is None
    assert FetchableUri.parse("s3://bucket/made/a.png?versionId=1") is None
