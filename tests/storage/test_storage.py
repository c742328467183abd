"""Storage on a real HTTP S3 server behind a proxy that spoils one request in ten, or every one that a test names.

Tests iqa_core/storage/retrying.py.
"""

from __future__ import annotations

import asyncio
import io
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.utils import parse_timestamp

from iqa_core.corpus.fetching import fetch, fetch_all
from iqa_core.corpus.plan.plan import Plan
from iqa_core.errors import CallerError, IqaError, RunError
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing, Oversized
from iqa_core.storage.range_file import BLOCK_BYTES, RangeFile
from iqa_core.storage.retrying import ATTEMPTS
from iqa_core.storage.storage import PART_BYTES, Storage
from iqa_core.storage.stores import STREAMED_BYTES, read_date
from tests.corpus.planned import WANTED
from tests.faulty_proxy import SPOILING, Fault, FaultyProxy
from tests.s3_server import Bucket, storage_options

pytestmark = pytest.mark.s3

ODD_KEYS = (
    "a b.jpg",
    "a+b.jpg",
    "a%20b.jpg",
    "a%b.jpg",
    "straße/雪 🏔.png",
    "what#now.jpg",
    "what?now=1&then=2.jpg",
    "dots...",
    "a//b.jpg",
    "a/../b.jpg",
    "./a.jpg",
    "quote'\"<&>.jpg",
    "colons::and:more.jpg",
    "star*[0]{1}.jpg",
    "back\\slash.jpg",
    "=;,@$!~()^|`.jpg",
)


@pytest.fixture
def direct(s3: Bucket) -> Storage:
    return Storage(storage_options(s3.endpoint))


@pytest.fixture
def spoilt(s3_proxy: FaultyProxy) -> Storage:
    """Through the proxy, which does nothing until a test says so."""
    s3_proxy.rate = 0
    return Storage(storage_options(s3_proxy.endpoint))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# what each call does


def test_what_is_put_is_read_and_listed_and_deleted(s3: Bucket, direct: Storage) -> None:
    uri = s3.uri("deep/er/object.bin")
    direct.put(uri, b"first")
    direct.put(uri, b"second")
    assert direct.read(uri) == b"second"
    found = direct.stat(uri)
    assert found is not None
    assert (found.uri, found.size, len(found.etag)) == (uri, 6, 32)
    assert [found] == list(direct.walk(s3.uri())), "stat and walk agree on size and etag"
    assert direct.names(s3.uri("deep")) == []
    assert direct.names(s3.uri("deep/er")) == ["object.bin"]
    direct.delete(uri)
    direct.delete(uri)
    assert direct.stat(uri) is None
    assert list(direct.walk(s3.uri())) == []


def test_ranges_are_exact(s3: Bucket, direct: Storage) -> None:
    data = noise(10_000)
    uri = s3.put("ranges", data)
    for begin, end in [(0, 1), (0, 10_000), (9_999, 10_000), (123, 4_567), (5, 5), (7, 3)]:
        assert direct.read(uri, begin, end) == data[begin:end]
    assert direct.read(uri, 9_000) == data[9_000:]
    for end in (10_001, 20_000):
        with pytest.raises(FetchFailed, match=f"it has 10000 bytes, {end} were expected"):
            direct.read(uri, 9_000, end)


def test_an_empty_object_is_read_as_such(s3: Bucket, direct: Storage) -> None:
    uri = s3.put("empty", b"")
    assert direct.read(uri) == b""
    assert direct.read(uri, max_bytes=10) == b""
    assert direct.read(uri, 0, 0) == b""
    found = direct.stat(uri)
    assert found is not None
    assert found.size == 0


def test_an_object_that_is_too_large_is_not_read(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    uri = s3.put("large", noise(3_000_000))
    assert len(spoilt.read(uri, max_bytes=3_000_000)) == 3_000_000
    with pytest.raises(Oversized, match="3000000"):
        spoilt.read(uri, max_bytes=2_999_999)
    rejected = fetch(spoilt, uri, None, ImageLimits(max_bytes=1000))
    assert rejected == Rejection(Reason.TOO_LARGE, "3000000 bytes encoded; the bound is 1000")


def test_create_lets_exactly_one_win(s3: Bucket, direct: Storage) -> None:
    uri = s3.uri("plan/000000.json")
    contents = [f"writer {index}".encode() for index in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        won = list(pool.map(lambda content: direct.create(uri, content), contents))
    assert won.count(True) == 1
    assert direct.read(uri) == contents[won.index(True)]


def test_create_knows_its_own_bytes_when_the_answer_was_lost(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage
) -> None:
    s3_proxy.rate, s3_proxy.faults, s3_proxy.methods = 0.5, [Fault.LOSE], ["PUT"]
    won = [spoilt.create(s3.uri(f"segment-{index}"), b"mine") for index in range(12)]
    assert s3_proxy.fault_counts()[Fault.LOSE] > 0
    assert won == [True] * 12
    assert not any(spoilt.create(s3.uri(f"segment-{index}"), b"theirs") for index in range(12))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_names_mean_themselves(s3: Bucket, direct: Storage, key: str) -> None:
    s3.put(f"odd/{key}", b"by the client")
    (entry,) = direct.walk(s3.uri("odd"))
    assert entry.uri == s3.uri(f"odd/{key}")
    assert direct.read(entry.uri) == b"by the client"
    assert direct.stat(entry.uri) == entry
    direct.put(entry.uri, b"by us")
    assert s3.keys() == [f"odd/{key}"]
    assert s3.get(f"odd/{key}") == b"by us"
    direct.delete(entry.uri)
    assert s3.keys() == []


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05.678Z", "Fri, 02 Jan 2026 03:04:05 GMT", 1767323045])
def test_dates_are_what_botocore_reads(text: str | int) -> None:
    assert read_date(text) == parse_timestamp(text)


def test_a_long_listing_is_complete_and_sorted_and_takes_a_request_per_thousand(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage
) -> None:
    keys = [f"{folder}/{index:04d}" for folder in ("B", "a", "a.b", "ä") for index in range(300)]
    s3.put_all(dict.fromkeys(keys, b""))
    s3.put("a/", b"")
    assert [entry.uri for entry in spoilt.walk(s3.uri())] == sorted(s3.uri(key) for key in keys)
    assert len(s3_proxy.requests()) == 2
    assert [entry.uri for entry in spoilt.walk(s3.uri("a"))] == [s3.uri(f"a/{index:04d}") for index in range(300)]
    assert spoilt.names(s3.uri("a")) == [f"{index:04d}" for index in range(300)]
    assert len(s3_proxy.requests()) == 4
    s3_proxy.rate, s3_proxy.faults = 0.5, SPOILING
    assert len(list(spoilt.walk(s3.uri()))) == 1200, "no page is lost or doubled"
    assert s3_proxy.fault_counts().total() > 0


def test_one_request_reads_an_object(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    objects = {f"{index:03d}.png": noise(500 + index, index) for index in range(40)}
    s3.put_all(objects)
    wanted = [(s3.uri(key), None if index % 2 else len(data)) for index, (key, data) in enumerate(objects.items())]
    assert list(fetch_all(spoilt, wanted, ImageLimits())) == list(objects.values())
    assert sorted(s3_proxy.requests()) == sorted(f"GET /{s3.name}/{key}" for key in objects)


def test_a_large_object_comes_in_parallel_parts(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    data = noise(2 * PART_BYTES + 12_345)
    uri = s3.put("large.tar", data)
    s3_proxy.rate, s3_proxy.faults = 0.6, SPOILING
    assert spoilt.read_large(uri, 0, len(data)) == data
    assert spoilt.read_large(uri, 1_000, len(data) - 1_000) == data[1_000:-1_000]
    assert s3_proxy.fault_counts().total() > 0
    assert len(s3_proxy.requests()) - s3_proxy.fault_counts().total() == 6, "three parts each"


def test_a_range_file_reads_blocks_not_bytes(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    data = noise(1_000_000)
    file = RangeFile(spoilt, s3.put("file", data), len(data))
    reader = random.Random(1)
    file.seek(0)
    assert file.read(4) == data[:4]
    for position in sorted(reader.randrange(BLOCK_BYTES - 512) for _ in range(200)):
        file.seek(position)
        assert file.read(512) == data[position : position + 512]
    assert len(s3_proxy.requests()) == 1
    file.seek(-10, io.SEEK_END)
    assert file.read() == data[-10:]
    file.seek(0)
    assert file.read() == data
    assert len(s3_proxy.requests()) == 3


# faults that pass


@pytest.mark.parametrize("fault", Fault)
def test_every_kind_of_fault_is_outlasted(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage, fault: Fault) -> None:
    objects = {f"in/{index:02d}": noise(2_000 + index, index) for index in range(8)}
    s3.put_all(objects)
    s3_proxy.faults, s3_proxy.rate = [fault], 0.35

    def through(item: tuple[str, bytes]) -> None:
        key, data = item
        uri, copy = s3.uri(key), s3.uri(f"out/{key}")
        assert spoilt.read(uri) == data
        assert spoilt.read(uri, 100, 1_100) == data[100:1_100]
        spoilt.put(copy, data)
        assert spoilt.create(f"{copy}.new", data)
        found = spoilt.stat(copy)
        assert found is not None
        assert found.size == len(data)

    with ThreadPoolExecutor(len(objects)) as pool:
        list(pool.map(through, objects.items()))
    assert {entry.uri for entry in spoilt.walk(s3.uri("in"))} == {s3.uri(key) for key in objects}
    assert {key: s3.get(f"out/{key}") for key in objects} == objects
    assert {key: s3.get(f"out/{key}.new") for key in objects} == objects
    assert {"GET", "PUT"} <= {seen.method for seen in s3_proxy.seen if seen.fault is fault}


def test_an_upload_that_is_cut_shows_nothing(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    old, new = noise(1_000, 1), noise(6 * 2**20, 2)
    uri = s3.put("scores.parquet", old)
    s3_proxy.faults, s3_proxy.rate, s3_proxy.methods = [Fault.CUT], 1, ["PUT", "POST"]
    writing = threading.Thread(target=spoilt.put, args=(uri, new))
    writing.start()
    while len(s3_proxy.seen) < 3:
        assert spoilt.read(uri) == old
    s3_proxy.rate = 0
    writing.join()
    assert s3.get("scores.parquet") == new
    assert s3.keys() == ["scores.parquet"]
    assert s3.uploads() == []


def test_a_store_that_never_recovers_is_given_up_in_time(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    uri = s3.put("object", b"data")
    s3_proxy.refuse("GET .*object", "InternalError", 500)
    s3_proxy.refuse("PUT", "SlowDown", 503)
    s3_proxy.refuse("list-type", "ServiceUnavailable", 503)
    s3_proxy.refuse("HEAD", "InternalError", 500)
    began = time.monotonic()
    calls: dict[str, Callable[[], object]] = {
        "InternalError": lambda: spoilt.read(uri),
        "SlowDown": lambda: spoilt.put(uri, b"other"),
        "ServiceUnavailable": lambda: spoilt.names(s3.uri()),
        "HTTP 500": lambda: spoilt.stat(uri),
    }
    with ThreadPoolExecutor(len(calls)) as pool:
        failures = {code: pool.submit(call) for code, call in calls.items()}
    for code, future in failures.items():
        failure = future.exception()
        assert isinstance(failure, FetchFailed)
        assert str(failure).endswith(f"{ATTEMPTS} tries failed, the last with {code}")
    assert len(s3_proxy.seen) == 4 * ATTEMPTS, "nothing below retries on its own"
    assert time.monotonic() - began < 200


# answers that are final


def test_missing_and_forbidden_are_asked_for_once(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    s3_proxy.refuse("denied")
    uris = {s3.uri("missing"): Missing, s3.put("denied", b"x"): Forbidden, f"s3://no-{s3.name}/key": Missing}
    for number, (uri, kind) in enumerate(uris.items(), start=1):
        with pytest.raises(kind, match=uri):
            spoilt.read(uri)
        assert len(s3_proxy.seen) == number
    with pytest.raises(Forbidden):
        spoilt.stat(s3.uri("denied"))
    assert spoilt.stat(s3.uri("missing")) is None
    got = [fetch(spoilt, uri, None, ImageLimits()) for uri in uris]
    assert [rejection.reason for rejection in got if isinstance(rejection, Rejection)] == [
        Reason.MISSING,
        Reason.FORBIDDEN,
        Reason.MISSING,
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ExpiredToken", 400),
        ("ExpiredToken", 403),
        ("InvalidAccessKeyId", 403),
        ("InvalidToken", 400),
        ("RequestTimeTooSkewed", 403),
        ("SignatureDoesNotMatch", 403),
    ],
)
def test_bad_credentials_stop_the_run(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage, code: str, status: int
) -> None:
    uri = s3.put("object", b"data")
    s3_proxy.refuse("", code, status)
    calls: list[Callable[[], object]] = [
        lambda: spoilt.read(uri),
        lambda: spoilt.read(uri, 0, 4),
        lambda: spoilt.put(uri, b"other"),
        lambda: spoilt.create(s3.uri("new"), b"other"),
        lambda: spoilt.delete(uri),
        lambda: spoilt.names(s3.uri()),
        lambda: list(spoilt.walk(s3.uri())),
        lambda: fetch(spoilt, uri, 4, ImageLimits()),
        lambda: spoilt.stat(uri),
    ]
    for call in calls:
        s3_proxy.clear()
        with pytest.raises(RunError, match=f"the credentials are refused.*{code}"):
            call()
        assert len(s3_proxy.requests("GET|PUT|DELETE")) == 1
    s3_proxy.relent()
    assert spoilt.read(uri) == b"data"


def test_missing_credentials_stop_the_run(s3: Bucket, s3_proxy: FaultyProxy) -> None:
    nobody = Storage({"endpoint_url": s3_proxy.endpoint})
    with pytest.raises(RunError, match="credentials"):
        nobody.read(s3.uri("object"))
    assert s3_proxy.seen == []


@pytest.mark.parametrize(("code", "status"), [("InvalidRequest", 400), ("NotImplemented", 501)])
def test_what_another_try_cannot_change_is_tried_once(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage, code: str, status: int
) -> None:
    s3_proxy.refuse("", code, status)
    with pytest.raises(FetchFailed, match=code):
        spoilt.read(s3.uri("object"))
    assert len(s3_proxy.seen) == 1


def test_a_bucket_that_is_not_there(s3: Bucket, direct: Storage) -> None:
    nowhere = f"s3://no-{s3.name}"
    assert direct.names(f"{nowhere}/scores") == []
    assert direct.stat(f"{nowhere}/plan/000000.json") is None
    assert direct.stat(nowhere) is None
    direct.delete(f"{nowhere}/x")
    calls: list[Callable[[], object]] = [
        lambda: list(direct.walk(nowhere)),
        lambda: direct.put(f"{nowhere}/x", b""),
        lambda: direct.create(f"{nowhere}/x", b""),
        lambda: direct.read("s3://No_such name!/x"),
    ]
    for call in calls:
        with pytest.raises(Missing):
            call()


def test_plain_http_is_read_with_the_same_care(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    objects = {f"{index}.png": noise(3_000, index) for index in range(20)}
    s3.put_all(objects)
    s3.open_to_all()
    folder = f"{s3_proxy.endpoint}/{s3.name}"
    s3_proxy.rate, s3_proxy.faults = 0.25, [Fault.THROTTLE, Fault.FAIL, Fault.CUT, Fault.LOSE]
    http = Storage()
    assert list(fetch_all(http, ((f"{folder}/{key}", None) for key in objects), ImageLimits())) == [*objects.values()]
    assert len(s3_proxy.fault_counts()) == 4
    s3_proxy.rate = 0
    s3_proxy.refuse("denied")
    with pytest.raises(Forbidden):
        http.read(f"{folder}/denied.png")
    with pytest.raises(Missing):
        http.read(f"{folder}/missing.png")


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"key": "a", "username": "b"}])
def test_storage_options_that_do_not_fit_are_the_callers_mistake(s3: Bucket, options: dict[str, object]) -> None:
    storage = Storage({**storage_options(s3.endpoint), **options})
    with pytest.raises(CallerError, match="--storage-options"):
        storage.read(s3.uri("object"))


def test_no_message_tells_a_secret(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    secret = storage_options("")["secret"]
    for code, status in [("AccessDenied", 403), ("NoSuchKey", 404), ("ExpiredToken", 400), ("InvalidRequest", 400)]:
        s3_proxy.refuse("", code, status)
        with pytest.raises(IqaError) as raised:
            spoilt.read(s3.uri("object"))
        assert secret not in f"{raised.value} {raised.value.__cause__}"
        s3_proxy.relent()


# what an output begins with


def test_an_output_begins_once_and_costs_one_request_from_then_on(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage
) -> None:
    uri, scratch = s3.uri("out/plan/000000.json"), s3.uri("out/.tmp")
    spoilt.begin(uri, b"first", scratch)
    spoilt.begin(uri, b"second", scratch)
    assert s3.keys() == ["out/plan/000000.json"], "the probe is gone"
    assert spoilt.read(uri) == b"first"
    s3_proxy.clear()
    spoilt.begin(uri, b"third", scratch)
    assert len(s3_proxy.requests()) == 1


@pytest.mark.parametrize("answer", ["ignored", "refused"])
def test_a_store_without_conditional_puts_is_refused_before_an_output_begins(
    s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage, answer: str
) -> None:
    if answer == "ignored":
        s3_proxy.lost_headers = frozenset({"if-none-match"})
        spoilt.put(s3.uri("there"), b"first")
        assert spoilt.create(s3.uri("there"), b"second"), "both of two drivers are told that they were first"
        spoilt.delete(s3.uri("there"))
    else:
        s3_proxy.refuse("PUT /.*/out/", "NotImplemented", 501, after=1)
    plan = Plan(spoilt, s3.uri("out"))
    with pytest.raises(CallerError, match=r"out/plan/000000\.json: its store does not keep .* write to a local folder"):
        plan.create(WANTED)
    assert s3.keys() == []


def streamed(storage: Storage, uri: str, announce: Callable[[int], None]) -> list[bytes]:
    async def read() -> list[bytes]:
        return [block async for block in storage.blocks(uri, announce)]

    return asyncio.run(read())


def test_an_object_arrives_in_blocks_after_its_size(s3: Bucket) -> None:
    data = noise(700_000)
    storage = Storage(storage_options(s3.endpoint))
    s3.put_all({"large": data, "empty": b""})
    sizes: list[int] = []
    blocks = streamed(storage, s3.uri("large"), sizes.append)
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= STREAMED_BYTES
    assert streamed(storage, s3.uri("empty"), sizes.append) == []
    assert sizes == [len(data)]

    def refuse(size: int) -> None:
        raise Oversized(size)

    with pytest.raises(Oversized):
        streamed(storage, s3.uri("large"), refuse)
    with pytest.raises(Missing):
        streamed(storage, s3.uri("none"), sizes.append)


def test_an_object_that_arrives_in_part_is_an_error(s3: Bucket, s3_proxy: FaultyProxy, spoilt: Storage) -> None:
    uri = s3.put("object", noise(300_000))
    s3_proxy.rate = 1
    for fault in (Fault.CUT, Fault.SHORT, Fault.LOSE, Fault.THROTTLE):
        s3_proxy.faults = (fault,)
        with pytest.raises(FetchFailed):
            streamed(spoilt, uri, lambda size: None)
    s3_proxy.rate = 0
    for code, kind in (("AccessDenied", Forbidden), ("ExpiredToken", RunError)):
        s3_proxy.refuse("", code, 403)
        with pytest.raises(kind):
            streamed(spoilt, uri, lambda size: None)
        s3_proxy.relent()
