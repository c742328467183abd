"""cluster/front/ -> nginx and HAProxy, as they are written there, in front of an endpoint and under attack."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.clock import least_s, slowness, wait_for
from tests.clusters import free_port
from tests.corpora import tiny_png
from tests.serve.local import listening
from tests.tls import self_signed

pytestmark = pytest.mark.chaos

FOLDER = Path(__file__).resolve().parent.parent.parent / "cluster" / "front"
TOKEN = "correct-horse-battery"
ATTACKER = "127.0.0.2"
CERTIFICATE = "/etc/ssl/iqa/certificate.pem"
HEAD = b"POST /v1/assess HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True)
class Front:
    """One that runs, and how it is reached."""

    process: psutil.Process
    port: int
    authority: ssl.SSLContext

    def get(self, path: str) -> int:
        return httpx2.get(f"https://127.0.0.1:{self.port}{path}", verify=self.authority, timeout=60).status_code

    def assess(self, *images: bytes, token: str = TOKEN) -> httpx2.Response:
        parts = [("images", ("i", image)) for image in images]
        headers = {"Authorization": f"Bearer {token}"}
        url = f"https://127.0.0.1:{self.port}/v1/assess"
        return httpx2.post(url, files=parts, headers=headers, verify=self.authority, timeout=60)

    def connection(self) -> ssl.SSLSocket:
        """Of somebody else, at another address."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60, source_address=(ATTACKER, 0))
        return self.authority.wrap_socket(plain, server_hostname="127.0.0.1")

    def memory(self) -> int:
        """Bytes in RAM of all its processes."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])


def nginx_command(text: str, folder: Path, port: int) -> tuple[list[str], str]:
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("http {", f"http {{\n{places}")
    user = "user root;" if os.geteuid() == 0 else ""  # who may write into this test's folder
    settings = f"daemon off; pid {folder}/pid; error_log {folder}/errors warn; {user}"
    return ["nginx", "-p", str(folder), "-e", f"{folder}/errors", "-g", settings, "-c"], text


def haproxy_command(text: str, folder: Path, port: int) -> tuple[list[str], str]:
    return ["haproxy", "-db", "-f"], text.replace("bind :443", f"bind 127.0.0.1:{port}")


FRONTS = {"nginx.conf": (nginx_command, "-t"), "haproxy.cfg": (haproxy_command, "-c")}


def running(name: str, endpoint: str, folder: Path) -> Iterator[Front]:
    """The configuration with this test's places in it, checked and started."""
    command, check = FRONTS[name]
    port = free_port()
    certificate = self_signed(folder, "127.0.0.1")
    given, text = command((FOLDER / name).read_text(encoding="utf-8"), folder, port)
    if shutil.which(given[0]) is None:
        pytest.skip(f"{given[0]} is not installed (apt-get install {given[0]})")
    assert text.count("127.0.0.1:8000") == 1
    assert CERTIFICATE in text
    text = text.replace("127.0.0.1:8000", endpoint.removeprefix("http://")).replace(CERTIFICATE, str(certificate))
    path = folder / name
    path.write_text(text, encoding="utf-8")
    checked = subprocess.run([*given, str(path), check], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not re.search(r"warn", checked.stdout + checked.stderr, re.IGNORECASE)
    process = subprocess.Popen([*given, str(path)], cwd=folder)
    try:
        wait_for(lambda: is_listening(port))
        yield Front(psutil.Process(process.pid), port, ssl.create_default_context(cafile=certificate))
    finally:
        process.terminate()
        process.wait(60)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    with listening(TOKEN) as url:
        yield url
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", params=sorted(FRONTS))
def front(request: pytest.FixtureRequest, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    yield from running(request.param, endpoint, tmp_path_factory.mktemp("front"))


def noise(side: int) -> bytes:
    buffer = BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def test_requests_go_through_whatever_their_size(front: Front) -> None:
    assert front.assess(tiny_png(1)).json()["results"][0]["status"] == "scored"
    large = [noise(1500 + i) for i in range(3)]
    assert sum(map(len, large)) > 20_000_000
    assert [one["status"] for one in front.assess(*large).json()["results"]] == ["scored"] * 3
    assert front.assess(tiny_png(1), token="of-somebody-else").status_code == 401
    assert front.get("/healthz") == 200
    assert front.assess(*large * 4).status_code == 413


def test_serves_own_paths_are_not_there(front: Front) -> None:
    for path in ("/-/routes", "/-/healthz", "/%2d/routes", "/-%2Froutes", "/%2D%2Fhealthz"):
        assert front.get(path) == 404


def test_an_endpoint_without_tokens_answers_nobody_through_it(tmp_path: Path) -> None:
    with listening() as url:
        for name in FRONTS:
            folder = tmp_path / name
            folder.mkdir()
            for front in running(name, url, folder):
                refused = front.assess(tiny_png(1))
                assert refused.status_code == 403
                assert "a proxy passed this on" in refused.json()["error"]["message"]


def flood(connection: socket.socket, block: bytes) -> bytes:
    """What is said to a head of 55 MB; nothing where the connection is broken first."""
    with suppress(OSError):
        connection.sendall(HEAD)
        for _ in range(55_000_000 // len(block)):
            connection.sendall(block)
    with suppress(OSError):
        return connection.recv(200)
    return b""


MANY = b"".join(b"X-%04d: y\r\n" % i for i in range(5000))


@pytest.mark.parametrize("block", [b"X-A: " + b"x" * 65_536, b"x" * 65_536, MANY], ids=["one", "no colon", "many"])
def test_a_head_of_55_mb_is_refused_in_a_moment_and_costs_no_memory(front: Front, block: bytes) -> None:
    before = front.memory()
    peak = [before]
    answers: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], front.memory())

    watching = threading.Thread(target=watch)

    def attack() -> None:
        with front.connection() as connection:
            answers.append(flood(connection, block))

    watching.start()
    took_s = least_s(attack, 2)
    done.set()
    watching.join()
    assert took_s <= 2
    assert {said.split()[1] for said in answers if said} <= {b"400", b"431"}
    assert peak[0] - before < 32 * 2**20
    assert front.assess(tiny_png(1)).status_code == 200


UVICORN = """
import sys
sys.modules["httptools"] = None  # as where it is not installed
import uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off")
"""


def test_without_httptools_uvicorn_refuses_it_by_itself() -> None:
    """So does Serve's proxy then, which is one."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", UVICORN, str(port)])
    try:
        wait_for(lambda: is_listening(port))

        def attack() -> None:
            for block in (b"X-A: " + b"x" * 65_536, MANY):
                with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                    said = flood(connection, block)
                assert not said or said.split()[1] == b"400"

        assert least_s(attack, 2) <= 2
        assert psutil.Process(process.pid).memory_info().rss < 100 * 2**20
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 204
    finally:
        process.terminate()
        process.wait(60)


def seconds_of_a_good_caller(front: Front) -> float:
    def ask() -> None:
        assert front.assess(tiny_png(1)).status_code == 200

    return least_s(ask, 2)


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(4096) == b"" or is_closed(connection)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


@pytest.mark.parametrize("kind", ["slow heads", "slow handshakes"])
def test_what_never_comes_to_its_point_is_dropped(front: Front, kind: str) -> None:
    open_one: dict[str, Callable[[], socket.socket]] = {
        "slow heads": front.connection,
        "slow handshakes": lambda: socket.create_connection(("127.0.0.1", front.port), source_address=(ATTACKER, 0)),
    }
    with ExitStack() as stack:
        slow = [stack.enter_context(open_one[kind]()) for _ in range(100)]
        drop = b"X" if kind == "slow heads" else b"\x16"
        began = time.monotonic()
        while slow and time.monotonic() - began < 40:  # nginx by itself would wait for 60
            slow = [one for one in slow if not is_closed(one)]
            for one in slow:
                try:
                    one.settimeout(1)
                    one.sendall(drop if kind == "slow heads" or time.monotonic() - began < 1 else b"")
                except OSError:
                    continue
            assert seconds_of_a_good_caller(front) <= 2
            time.sleep(0.5)
    assert not slow


def test_a_thousand_idle_connections_keep_nobody_out(front: Front) -> None:
    before = front.memory()
    with ExitStack() as stack:
        for i in range(1000):
            address = f"127.0.0.{2 + i // 200}"
            plain = socket.create_connection(("127.0.0.1", front.port), timeout=60, source_address=(address, 0))
            stack.enter_context(plain)
        took = [seconds_of_a_good_caller(front) for _ in range(10)]
        assert sorted(took)[5] < 0.5 * slowness()
        assert max(took) <= 2
        assert front.memory() - before < 100 * 2**20
