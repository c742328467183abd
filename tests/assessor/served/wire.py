"""A real HTTP server of OpenAI's chat completions, over a fake assessor that writes, with faults on demand."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.fake import FakeAssessor
from iqa_core.assessor.fake_writer import FakeWriter

MODEL = "fake-writer"


class Wire:
    """What the server does, and what it was asked."""

    def __init__(self, rubric: str) -> None:
        assessor = load_assessor("fake:?cut_share=0.2", rubric)
        assert isinstance(assessor, FakeAssessor)
        self.assessor = assessor
        self.model, self.owner = MODEL, "vllm"
        self.faults: list[str] = []
        """One for each of the next requests: 429, 500, 400, cut, slow, few, gone-model, thoughts, or an empty one."""
        self.refuse_colour: tuple[int, int, int] | None = None
        """Of the first pixel of images that are always refused with 400."""
        self.wanted: str | None = None
        """Header of whom it knows; None is everybody."""
        self.version_status = 200
        self.bodies: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.given: Counter[bytes] = Counter()
        """Answers that were given about an image so far."""
        self.is_gone = False
        self.lock = threading.Lock()

    def answers(self, pixels: np.ndarray, count: int) -> list[dict[str, Any]]:
        """The next answers about this image; they begin anew after the last one."""
        writer = self.assessor._answers
        assert isinstance(writer, FakeWriter)
        with self.lock:
            start = self.given[pixels.tobytes()]
            self.given[pixels.tobytes()] += count
        [seen] = self.assessor._seen([pixels], [{}])
        samples = [writer._sample(seen, (start + i) % writer._rubric.decoding.samples) for i in range(count)]
        return [
            {"message": {"role": "assistant", "content": one.text}, "finish_reason": one.finish.value}
            for one in samples
        ]


def pixels_in(body: dict[str, Any]) -> np.ndarray:
    """The image of a request."""
    parts = body["messages"][-1]["content"]
    [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@contextmanager
def serving(wire: Wire) -> Iterator[str]:
    """The address, while it is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            if wire.wanted not in (None, self.headers.get("authorization")):
                self._json(401, {"error": "Unauthorized"})
            elif self.path == "/v1/models":
                self._json(200, {"data": [{"id": wire.model, "root": "/models/fake", "owned_by": wire.owner}]})
            elif self.path == "/version":
                self._json(wire.version_status, {"version": "1.2.3"})
            else:
                self._json(404, {})

        def do_POST(self) -> None:
            if wire.is_gone:  # connections that were open outlive the server
                self.close_connection = True
                return
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with wire.lock:
                fault = wire.faults.pop(0) if wire.faults else ""
                wire.bodies.append(body)
                wire.tokens.add(self.headers.get("authorization"))
            pixels = pixels_in(body)
            if fault == "429":
                self.send_response(429)
                self.send_header("retry-after", "0")
                self.send_header("content-length", "0")
                self.end_headers()
            elif fault in ("500", "400"):
                self._json(int(fault), {"error": {"message": "no"}})
            elif wire.refuse_colour is not None and tuple(pixels[0, 0]) == wire.refuse_colour:
                self._json(400, {"error": {"message": "I cannot see this image"}})
            else:
                if fault == "slow":
                    time.sleep(0.5)
                choices = wire.answers(pixels, body["n"] - (fault == "few"))
                if fault == "thoughts":
                    choices[0]["message"]["reasoning_content"] = "hm"
                model = "another" if fault == "gone-model" else body["model"]
                self._json(200, {"model": model, "choices": choices}, is_cut=fault == "cut")

        def _json(self, status: int, content: Any, is_cut: bool = False) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if is_cut else data)
            if is_cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, wire.is_gone = True, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        wire.is_gone = True
        server.shutdown()
        thread.join()  # before its socket is closed: see tests/accepting.py
        server.server_close()
