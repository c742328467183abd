"""A folder of repositories -> a Hugging Face Hub on a loopback port, as far as fetching goes, and what was fetched.

<root>/models/org/name/...      <root>/datasets/org/name/...
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASKED = re.compile(r"/api/(?P<api>models|datasets)/(?P<name>[^/]+/[^/]+)/(?P<what>revision|tree)/[^/]+")
RESOLVED = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)")


@dataclass
class FakeHub:
    """What a test sees of it."""

    root: Path
    endpoint: str = ""
    fetched: list[str] = field(default_factory=list)
    """Files whose bytes were sent, in order."""

    def run(self, script: str, home: Path) -> str:
        """What a script that uses this hub prints; in a process, as the environment is read when it is imported."""
        variables = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0"}
        return subprocess.run(
            [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()


@contextmanager
def running_hub(root: Path) -> Iterator[FakeHub]:
    hub = FakeHub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            if asked := ASKED.fullmatch(self.path.partition("?")[0]):
                self._describe(hub.root / asked["api"] / asked["name"], asked["what"])
            elif resolved := RESOLVED.fullmatch(self.path.partition("?")[0]):
                kind = (resolved["kind"] or "models/").rstrip("/")
                self._send_file(hub.root / kind / resolved["name"] / resolved["file"], resolved["file"], with_body)
            else:
                self._send(404, b"", {})

        def _describe(self, repository: Path, what: str) -> None:
            if not repository.is_dir():
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            files = [path for path in sorted(repository.rglob("*")) if path.is_file()]
            names = [str(path.relative_to(repository)) for path in files]
            info = {"id": "/".join(repository.parts[-2:]), "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            tree = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path.read_bytes())}
                for name, path in zip(names, files, strict=True)
            ]
            body = json.dumps(tree if what == "tree" else info).encode()
            self._send(200, body, {"Content-Type": "application/json"})

        def _send_file(self, path: Path, name: str, with_body: bool) -> None:
            if not path.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            data = path.read_bytes()
            if with_body:
                hub.fetched.append(name)
            self._send(200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT}, with_body)

        def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
