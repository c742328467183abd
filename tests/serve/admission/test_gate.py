"""Who may ask, and how much: refused before anything is read or decoded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve.admission.gate import BODY_BYTES_PER_S, Gate, is_loopback, peer_of
from tests.clock import eventually
from tests.corpora import tiny_png
from tests.serve.local import local_endpoint

TOKEN = "correct-horse-battery"
IMAGE = tiny_png(1)


def post_status(
    *, peer: str = "127.0.0.1", headers: dict[str, str] | None = None, tokens: tuple[str, ...] = (), **settings: Any
) -> int:
    async def test() -> int:
        async with local_endpoint(*tokens, **settings).client(peer=peer) as client:
            answer = await client.post("/v1/assess", files=[("images", IMAGE)], headers=headers)
            assert answer.status_code == 200 or set(answer.json()["error"]) == {"code", "message"}
            return answer.status_code

    return asyncio.run(test())


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}-2", 200),
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN},{TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer \u00ff\u00fe", 401),
        ("Bearer " + "x" * 10_000, 401),
    ],
)
def test_a_token_is_asked_for(authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    assert post_status(headers=headers, tokens=(TOKEN, f"{TOKEN}-2"), peer="203.0.113.7") == status  # type: ignore[arg-type]


async def unread(gate: Gate, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What the gate sends without asking for a body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    return sent


def test_a_wrong_token_reads_no_body_and_learns_nothing() -> None:
    async def test() -> None:
        sent = await unread(local_endpoint(TOKEN).gate, scope("/v1/assess", {"content-length": "10"}))
        assert sent[0]["status"] == 401
        assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]

    asyncio.run(test())


def scope(path: str, headers: dict[str, str], peer: str = "127.0.0.1") -> dict[str, Any]:
    raw = {"host": "127.0.0.1:8000", "content-type": "application/json", **headers}
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in raw.items()],
        "client": (peer, 50_000),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/health", "/openapi.json"])
def test_what_tells_nothing_needs_no_token(path: str) -> None:
    async def test() -> None:
        async with local_endpoint(TOKEN).client() as client:
            assert (await client.get(path)).status_code == 200

    asyncio.run(test())


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/rewards", "/nothing", "/v1", "/healthz/", "/HEALTHZ"])
def test_all_else_does(path: str) -> None:
    async def test() -> None:
        async with local_endpoint(TOKEN).client() as client:
            assert (await client.get(path)).status_code == 401

    asyncio.run(test())


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.8.8.8", {}, 200),
        ("::1", {"Host": "[::1]:8000"}, 200),
        ("127.0.0.1", {"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ("203.0.113.7", {}, 403),
        ("10.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Host": "rebound.example.org"}, 403),
        ("127.0.0.1", {"Host": "127.0.0.1.example.org"}, 403),
        ("127.0.0.1", {"Origin": "https://example.org"}, 403),
        ("127.0.0.1", {"Origin": "null"}, 403),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"X-FORWARDED-PROTO": ""}, 403),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Via": "1.1 squid"}, 403),
        ("127.0.0.1", {"CF-Connecting-IP": "203.0.113.7"}, 403),
        ("127.0.0.1", {"X-Request-ID": "forwarded"}, 200),
    ],
)
def test_without_a_token_only_this_machine_is_served(peer: str, headers: dict[str, str], status: int) -> None:
    assert post_status(peer=peer, headers=headers) == status
    assert post_status(peer=peer, headers=headers, open=True) == 200


def test_with_a_token_it_may_come_through_proxies() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "203.0.113.7", "Via": "1.1 nginx"}
    assert post_status(headers=headers, tokens=(TOKEN,)) == 200


def test_what_nginx_speaks_by_itself_is_not_local() -> None:
    async def test() -> None:
        sent = await unread(local_endpoint().gate, {**scope("/v1/assess", {}), "http_version": "1.0"})
        assert sent[0]["status"] == 403
        assert b"HTTP/1.0 says that a proxy passed this on; start it with IQA_API_TOKENS" in sent[1]["body"]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "5000"}, 413),
        ({"content-length": "9" * 400}, 400),
        ({"content-length": "-1"}, 400),
        ({"content-length": "1e3"}, 400),
        ({"content-length": "٣"}, 400),
        ({"content-length": "10", "content-encoding": "gzip"}, 415),
    ],
)
def test_a_body_is_refused_by_its_headers_before_it_is_read(headers: dict[str, str], status: int) -> None:
    async def test() -> None:
        endpoint = local_endpoint(max_body_bytes=4096)
        sent = await unread(endpoint.gate, scope("/v1/assess", headers))
        assert sent[0]["status"] == status
        assert endpoint.gate.open_requests == 0

    asyncio.run(test())


def test_a_body_that_grows_over_the_limit_is_given_up() -> None:
    async def test() -> None:
        asked = 0

        async def endless() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return {"type": "http.request", "body": bytes(1000), "more_body": True}

        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await local_endpoint(max_body_bytes=4096).gate(scope("/v1/assess", {}), endless, send)
        assert sent[0]["status"] == 413
        assert asked == 5

    asyncio.run(test())


async def told(gate: Gate, receive: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of what a caller is told whose body comes like this."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope("/v1/assess", headers or {}), receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


async def never() -> dict[str, Any]:
    await asyncio.sleep(600)
    raise AssertionError


def coming(parts: list[bytes], every_s: float) -> Any:
    """A body in parts, the first of them at once."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(every_s if len(left) < len(parts) else 0)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


@pytest.mark.parametrize("limit", ["body_grace_s", "request_timeout_s"])
def test_a_body_that_does_not_come_frees_its_place(limit: str) -> None:
    async def test() -> None:
        endpoint = local_endpoint(**{limit: 0.05})
        status, headers = await told(endpoint.gate, never)
        assert (status, headers[b"connection"]) == (408, b"close")
        assert endpoint.gate.open_requests == 0
        assert endpoint.metrics.turned_away == {"slow body": 1}

    asyncio.run(test())


def test_a_body_has_to_keep_a_rate_and_may_take_its_time_with_it() -> None:
    async def test() -> None:
        endpoint = local_endpoint(body_grace_s=0.5)
        half_a_minute = bytes(30 * BODY_BYTES_PER_S)  # so much that a busy machine does not use it up
        fast, slow = await asyncio.gather(
            told(endpoint.gate, coming([half_a_minute, b"x"], 0.8)),
            told(endpoint.gate, coming([b"x"] * 1000, 0.03)),
        )
        assert fast[0] == 422, "it was read to its end"
        assert slow[0] == 408

    asyncio.run(test())


def test_places_are_for_those_who_send_and_those_who_are_answered_each() -> None:
    """Connections that announce 64 MB and send nothing, as many as may be and more."""

    async def test() -> None:
        announced = {"content-length": str(64 * 2**20), "authorization": f"Bearer {TOKEN}"}
        endpoint = local_endpoint(TOKEN, f"{TOKEN}-2", max_requests=32, body_grace_s=120)
        idle = [asyncio.create_task(told(endpoint.gate, never, announced)) for _ in range(200)]
        await eventually(lambda: sum(task.done() for task in idle) == 200 - 16)
        turned_away = [task.result() for task in idle if task.done()]
        assert endpoint.gate.open_requests == 16
        assert {(status, headers[b"connection"]) for status, headers in turned_away} == {(429, b"close")}
        for token, status in ((f"{TOKEN}-2", 200), (TOKEN, 429)):
            async with endpoint.client(token=token) as client:
                answers = await asyncio.gather(
                    *(client.post("/v1/assess", files=[("images", IMAGE)]) for _ in range(8))
                )
                assert {answer.status_code for answer in answers} == {status}
        for task in idle:
            task.cancel()
        await asyncio.wait(idle)
        assert endpoint.gate.open_requests == 0

    asyncio.run(test())


def test_callers_beyond_the_places_are_turned_away_and_served_as_soon_as_there_is_room() -> None:
    async def test() -> None:
        slow = {"checkpoint": "fake:?sleep_s=0.05"}
        endpoint = local_endpoint(assessor=slow, max_requests=8)
        async with endpoint.client() as client:

            async def ask() -> Any:
                return await client.post("/v1/assess", files=[("images", IMAGE)])

            answers = await asyncio.gather(*(ask() for _ in range(40)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 429}
            for answer in answers:
                if answer.status_code == 429:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.json()["error"]["code"] == "overloaded"
            assert endpoint.gate.open_requests == 0
            assert endpoint.metrics.turned_away == {"places": statuses.count(429)}
            again = await asyncio.gather(ask(), ask())
            assert [answer.status_code for answer in again] == [200, 200], "there are places for two"

    asyncio.run(test())


def test_another_token_is_answered_while_one_has_all_that_it_may() -> None:
    async def test() -> None:
        slow = {"checkpoint": "fake:?sleep_s=0.003", "batch_tokens": 200}
        endpoint = local_endpoint(TOKEN, f"{TOKEN}-2", assessor=slow, max_requests=16, decoders=2)
        async with endpoint.client(token=TOKEN) as greedy, endpoint.client(token=f"{TOKEN}-2") as modest:
            files = [("images", tiny_png(number)) for number in range(16)]
            crowd = [asyncio.create_task(greedy.post("/v1/assess", files=files)) for _ in range(12)]
            await eventually(lambda: endpoint.gate.open_requests == 8, every_s=0)
            answer = await modest.post("/v1/assess", files=[("images", IMAGE)])
            assert answer.status_code == 200
            assert sum(task.done() and task.result().status_code == 200 for task in crowd) <= 4
            statuses = [answer.status_code for answer in await asyncio.gather(*crowd)]
            assert statuses.count(200) == 8
            assert statuses.count(429) == 4

    asyncio.run(test())


def test_a_small_image_passes_large_ones_of_another_token() -> None:
    async def test() -> None:
        slow = {"checkpoint": "fake:?prepare_sleep_s=0.2"}
        endpoint = local_endpoint(TOKEN, f"{TOKEN}-2", assessor=slow, max_decode_bytes=16 * 2**20)
        async with endpoint.client(token=TOKEN) as greedy, endpoint.client(token=f"{TOKEN}-2") as modest:
            files = [("images", tiny_png(2, size=400))] * 8  # each more than half of the memory
            large = asyncio.create_task(greedy.post("/v1/assess", files=files))
            await asyncio.sleep(0.1)  # a start ahead of 1.6 s of work, one image after the other
            answer = await modest.post("/v1/assess", files=[("images", IMAGE)])
            assert answer.json()["results"][0]["status"] == "scored"
            assert not large.done()
            assert [one["status"] for one in (await large).json()["results"]] == ["scored"] * 8

    asyncio.run(test())


def test_bodies_held_at_once_are_bounded() -> None:
    async def test() -> None:
        slow = {"checkpoint": "fake:?sleep_s=0.05"}
        endpoint = local_endpoint(TOKEN, f"{TOKEN}-2", assessor=slow, max_pending_bytes=8192, max_body_bytes=4096)
        padded = IMAGE + bytes(2000)
        async with endpoint.client(token=TOKEN) as one, endpoint.client(token=f"{TOKEN}-2") as other:
            posts = [client.post("/v1/assess", files=[("images", padded)]) for client in (one, one, one, other)]
            statuses = [answer.status_code for answer in await asyncio.gather(*posts)]
            assert statuses == [200, 429, 429, 200]
            assert endpoint.metrics.turned_away == {"bytes": 2}
            assert (await one.post("/v1/assess", files=[("images", padded)])).status_code == 200

    asyncio.run(test())


def test_a_get_has_no_body_and_a_post_to_an_open_path_is_not_open() -> None:
    async def test() -> None:
        async with local_endpoint(TOKEN).client() as client:
            answer = await client.request("GET", "/readyz", content=b"x" * 1000)
            assert (answer.status_code, answer.headers["connection"]) == (400, "close")
            assert (await client.request("GET", "/healthz", headers={"Content-Length": "0"})).status_code == 200
            assert (await client.post("/healthz", content=b"x" * 1000)).status_code == 401

    asyncio.run(test())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_without_tokens_a_caller_is_its_address(host: str, expected: str) -> None:
    assert peer_of({"client": (host, 1)}) == expected
    assert peer_of({"client": None}) == ""


def test_a_caller_who_leaves_frees_the_place_and_the_queue() -> None:
    async def test() -> None:
        endpoint = local_endpoint(assessor={"checkpoint": "fake:?sleep_s=0.5"})
        async with endpoint.client() as client:
            posts = [asyncio.create_task(client.post("/v1/assess", files=[("images", IMAGE)])) for _ in range(8)]
            await eventually(lambda: endpoint.gate.open_requests == 8, every_s=0)
            for post in posts[1:]:
                post.cancel()
            # those whose decoders were at work wait until these are gone
            await eventually(lambda: endpoint.gate.open_requests <= 1)
            assert (await posts[0]).status_code == 200
            assert endpoint.replicas.target._batcher.num_waiting == 0

    asyncio.run(test())
