"""A headless Chromium, driven over its DevTools protocol: no more of it than the tests of the page need."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Space": ("Space", 32, " "),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "Delete": ("Delete", 46, ""),
}
SHIFT = 8


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command; events that come in between are kept."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=120))
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def eval(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str, within_s: float = 60) -> Any:
        """The first value of an expression that is true."""
        deadline = time.monotonic() + within_s
        while not (value := self.eval(expression)):
            assert time.monotonic() < deadline, (
                f"{expression} does not come true; {self.eval('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def drop_files(self, selector: str, paths: Sequence[Path]) -> None:
        """As by a mouse from another window."""
        place = self.eval(
            f"(r => ({{x: r.x + r.width / 2, y: r.y + r.height / 2}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **place)

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move and release the mouse over an element. begin, end: fractions of its sides."""
        left, top, width, height = self.eval(
            f"(r => [r.x, r.y, r.width, r.height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind, (across, down) in (("mousePressed", begin), ("mouseMoved", end), ("mouseReleased", end)):
            place = {"x": left + across * width, "y": top + down * height}
            self.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **place)

    def press(self, key: str, modifiers: int = 0) -> None:
        code, number, text = KEYS[key]
        stroke = {"key": text if key == "Space" else key, "code": code, "windowsVirtualKeyCode": number}
        stroke["modifiers"] = modifiers
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **stroke)
        self.call("Input.dispatchKeyEvent", type="keyUp", **stroke)

    def type_into(self, selector: str, text: str) -> None:
        """In place of what stands there, as by somebody who then presses Enter."""
        self.eval(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)
        self.press("Enter")

    def look_like(self, width: int, height: int, scheme: str = "light") -> None:
        """A window of this size; a phone if it is narrow."""
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    assert CHROMIUM is not None
    # Chromium's children write into it a moment longer than it lives
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_tab_of(Path(profile), process), max_size=2**26) as connection:
                page = Page(connection)
                for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
                    page.call(f"{domain}.enable")
                yield page
        finally:
            process.terminate()
            process.wait(120)


def _tab_of(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Address of the first tab, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        found: str = target["webSocketDebuggerUrl"]
                        return found
        except (OSError, IndexError):
            pass
        time.sleep(0.2)
    raise AssertionError("Chromium does not start")
