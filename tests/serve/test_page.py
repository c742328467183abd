"""The playground in a real browser: files dropped and chosen, scores read, several ranked, by mouse and by keyboard;
what it says where there are none."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest

from iqa_core.client import RewardClient
from serve.api import PAGE, page_policy
from tests.bad_images import png_claiming
from tests.corpora import tiny_png
from tests.serve.browser import CHROMIUM, SHIFT, Page, browser
from tests.serve.local import UNEVEN, listening

TOKEN = "correct-horse-battery"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
CARDS = "document.querySelectorAll('#cards li')"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(TOKEN) as found:
        yield found


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture
def page(tab: Page, url: str) -> Page:
    """Opened anew, with the token entered."""
    tab.look_like(1100, 900)
    tab.open(f"{url}/")
    tab.eval(f"document.getElementById('token').value = '{TOKEN}'")
    tab.events.clear()
    return tab


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"room {i}'s.png" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(tiny_png(i, size=200))
    return paths


@pytest.mark.slow
@needs_chromium
def test_a_dropped_image_shows_its_scores_and_distributions(page: Page, url: str, images: list[Path]) -> None:
    page.drop_files("#drop", images[:1])
    page.wait_for(f"{CARDS}.length === 1")
    with RewardClient(url, TOKEN) as client:
        [score] = client.assess(images[:1])
    assert score.reward is not None
    assert page.eval("document.querySelector('.reward').textContent") == f"{score.reward:.3f}"
    assert page.eval("[...document.querySelectorAll('th')].map(e => e.textContent)") == list(score.scores)
    numbers = page.eval("[...document.querySelectorAll('td.number')].map(e => e.textContent)")
    assert numbers == [f"{score.scores[name]:.2f} ± {score.std[name]:.2f}" for name in score.scores]
    assert page.eval("document.querySelectorAll('.levels rect').length") == 5 * len(score.scores)
    page.wait_for("document.querySelector('#cards img').naturalWidth > 0")
    assert "1 (worst) " in page.eval("document.querySelector('.levels').getAttribute('aria-label')")
    page.wait_for("document.getElementById('domain').textContent")
    told = page.eval("document.getElementById('domain').textContent")
    assert told == "Rubric interior-v1 is meant for: Interior rooms, generated or photographed."


@pytest.mark.slow
@needs_chromium
def test_a_rubric_with_a_prompt_is_asked_with_the_one_that_is_entered(tab: Page, images: list[Path]) -> None:
    with listening(rubric=str(UNEVEN.with_name("prompted.toml")), fusion=None) as url, RewardClient(url) as client:
        tab.open(f"{url}/")
        tab.wait_for("!document.getElementById('ask').hidden")
        tab.drop_files("#drop", images[:1])
        tab.wait_for("document.querySelector('.reason')?.textContent === 'rejected: missing_text'")
        tab.eval("get('prompt').value = 'a hall'; get('prompt').dispatchEvent(new Event('change'))")
        tab.wait_for("document.querySelector('.reward') !== null")
        [score] = client.assess(images[:1], "a hall")
        assert tab.eval("document.querySelector('.reward').textContent") == f"{score.reward:.3f}"
        numbers = tab.eval("[...document.querySelectorAll('td.number')].map(e => e.textContent)")
        assert numbers == [f"{score.scores[name]:.2f} ± {score.std[name]:.2f}" for name in score.scores]
        assert tab.eval("document.querySelectorAll('.levels rect').length") == 5 + 2 + 3 + 2 + 2
        ends = tab.eval("[...document.querySelectorAll('meter')].map(e => [e.min, e.max])")
        assert ends == [[1, 5], [0, 1], [0, 10], [0, 1], [0, 1]]
        assert "two_dogs " in tab.eval("document.querySelectorAll('.levels')[3].getAttribute('aria-label')")
        assert "--form-string 'prompt=a hall'" in tab.eval("command()")


@pytest.mark.slow
@needs_chromium
def test_the_rubric_that_is_chosen_asks(tab: Page, images: list[Path]) -> None:
    rubrics = ["interior-v1", str(UNEVEN.with_name("prompted.toml"))]
    with listening(rubrics=rubrics, fusion=None) as url:
        tab.open(f"{url}/")
        tab.wait_for("!document.getElementById('which').hidden")
        assert tab.eval("[...get('rubric').options].map(one => one.value)") == ["interior-v1", "prompted"]
        assert tab.eval("get('ask').hidden")
        tab.drop_files("#drop", images[:1])
        tab.wait_for("get('status').textContent.includes('rubric interior-v1')")
        tab.eval("get('prompt').value = 'a hall'")
        tab.eval("get('rubric').value = 'prompted'; get('rubric').dispatchEvent(new Event('change'))")
        tab.wait_for("get('status').textContent.includes('rubric prompted')")
        assert not tab.eval("get('ask').hidden")
        assert "made from a prompt" in tab.eval("get('domain').textContent")
        assert tab.eval("Object.keys(shown[0].result.scores)[1]") == "faithful"
        assert "--form-string 'rubric=prompted' --form-string 'prompt=a hall'" in tab.eval("command()")


@pytest.mark.slow
@needs_chromium
def test_four_images_are_ranked_and_one_that_is_rejected_says_why(
    page: Page, url: str, images: list[Path], tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_claiming(60_000, 60_000))
    page.drop_files("#drop", [*images, bomb])
    page.wait_for(f"{CARDS}.length === 5")
    with RewardClient(url, TOKEN) as client:
        ranking = client.rank([*images, bomb])
    names = page.eval("[...document.querySelectorAll('.name')].map(e => e.textContent)")
    assert names == [*(images[i].name for i in ranking.order), "bomb.png"]
    assert page.eval("document.querySelectorAll('li.best').length") == 1
    assert page.eval("document.querySelector('li.best .name').textContent") == images[ranking.order[0]].name
    assert page.eval("document.querySelector('.reason').textContent") == "rejected: too_large"
    assert page.eval("document.getElementById('status').textContent").startswith("4 scored, 1 rejected")


@pytest.mark.slow
@needs_chromium
def test_the_copied_curl_gives_the_same_answer(page: Page, url: str, images: list[Path]) -> None:
    page.choose_files("#files", images)
    page.wait_for(f"{CARDS}.length === 4")
    command = page.eval("command()")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=images[0].parent,
        env={"IQA_API_TOKEN": TOKEN, "PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["rewards"] == page.eval("shown.map(one => one.result.reward)")
    assert answer["order"] == [0, 1, 2, 3]  # the command names them best first
    assert TOKEN not in command


@pytest.mark.slow
@needs_chromium
def test_a_pasted_image_is_scored(page: Page) -> None:
    page.eval(
        """fetch('/openapi.json').then(r => r.json()).then(d => {
          const text = d.paths['/v1/assess'].post.requestBody.content['application/json'].example.images[0].data;
          const bytes = Uint8Array.from(atob(text.split(',')[1]), c => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'pasted.png', {type: 'image/png'}));
          document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer}));
        })"""
    )
    page.wait_for("!!document.querySelector('.reward')")
    assert page.eval("document.querySelector('.name').textContent") == "pasted.png"


@pytest.mark.slow
@needs_chromium
def test_scores_stand_in_the_cells_and_a_box_is_drawn_by_pointer_and_by_keys(tab: Page, images: list[Path]) -> None:
    with listening(assessor={"checkpoint": "fake:?view_px=20"}) as url, RewardClient(url) as client:
        tab.look_like(1100, 900)
        tab.open(f"{url}/")
        tab.events.clear()
        tab.drop_files("#drop", images[:1])
        tab.wait_for("get('parts').disabled === false")
        tab.eval("get('parts').click()")
        tab.wait_for("document.querySelector('.parts') !== null")
        [found] = client.ground(images[:1])
        name, *others = found.dimensions
        place = found.dimensions[name]
        scores = tab.eval("[...document.querySelectorAll('.cell span')].map(e => e.textContent)")
        assert scores == [f"{score:.2f}" for row in place.cells for score in row]
        assert place.cell is not None
        worst = tab.eval("[...document.querySelectorAll('.cell')].findIndex(e => e.classList.contains('worst'))")
        assert worst == 2 * place.cell[0] + place.cell[1]
        inside = "((p, i) => [p.x - i.x, p.y - i.y, p.width - i.width, p.height - i.height])"
        sides = "document.querySelector('%s').getBoundingClientRect()"
        assert tab.eval(f"{inside}({sides % '.parts'}, {sides % '.fit img'})") == pytest.approx([0] * 4, abs=0.6)

        tab.drag(".parts", (0.1, 0.2), (0.6, 0.7))
        tab.wait_for("document.querySelectorAll('.box').length === 1 && shown[0].parts.boxes.length === 1")
        assert tab.eval("shown[0].boxes[0]") == pytest.approx([20, 40, 100, 100], abs=2)
        [asked] = client.ground(images[:1], [[tab.eval("shown[0].boxes[0]")]])
        said = tab.eval("[...document.querySelectorAll('#cards td:last-child')].at(-1).textContent")
        assert said == ", ".join(f"{one} {score:.2f}" for one, score in asked.boxes[0].scores.items())

        tab.eval("document.querySelector('.parts').focus()")
        for key, modifiers in (("ArrowRight", 0), ("ArrowDown", SHIFT), ("Enter", 0)):
            tab.press(key, modifiers)
        tab.wait_for("shown[0].parts.boxes.length === 2")
        assert tab.eval("shown[0].boxes[1]") == pytest.approx([87.5, 75, 50, 62.5])
        assert tab.eval("document.activeElement.className") == "parts", "the keyboard goes on from there"
        tab.press("Delete")
        tab.wait_for("shown[0].parts.boxes.length === 1")
        tab.eval(f"get('dimension').value = '{others[0]}'; get('dimension').dispatchEvent(new Event('change'))")
        scores = tab.eval("[...document.querySelectorAll('.cell span')].map(e => e.textContent)")
        assert scores == [f"{score:.2f}" for row in found.dimensions[others[0]].cells for score in row]
        assert not [one for one in tab.events if one["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]


@pytest.mark.slow
@needs_chromium
def test_everything_is_reached_by_keyboard(page: Page, images: list[Path]) -> None:
    page.choose_files("#files", images[:2])
    page.wait_for(f"{CARDS}.length === 2")
    page.eval("document.activeElement.blur()")
    reached = []
    for _ in range(5):
        page.press("Tab")
        reached.append(page.eval("document.activeElement.id"))
    assert reached == ["files", "token", "parts", "curl", "clear"]
    assert page.eval("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    page.wait_for(f"{CARDS}.length === 0")
    assert page.eval("document.activeElement.id") == "files"


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_the_dark(page: Page, images: list[Path], scheme: str) -> None:
    page.look_like(360, 740, scheme)
    page.choose_files("#files", images)
    page.wait_for(f"{CARDS}.length === 4")
    assert page.eval("document.documentElement.scrollWidth") <= 360
    assert page.eval("[...document.querySelectorAll('button')].every(b => b.offsetHeight >= 44)")
    luminance = (
        "(name => { const c = getComputedStyle(document.body)[name].match(/\\d+/g).map(Number).map(v => v / 255)"
        ".map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);"
        " return .2126 * c[0] + .7152 * c[1] + .0722 * c[2]; })"
    )
    ink, paper = page.eval(f"{luminance}('color')"), page.eval(f"{luminance}('backgroundColor')")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 7  # WCAG AAA
    assert (paper < ink) == (scheme == "dark")


def said(page: Page, begins: str) -> str:
    """What it says once it says something bad that begins like this."""
    page.wait_for(f"document.getElementById('status').textContent.startsWith({json.dumps(begins)})")
    assert page.eval("document.getElementById('status').className") == "bad"
    found: str = page.eval("document.getElementById('status').textContent")
    return found


@pytest.mark.slow
@needs_chromium
def test_a_missing_token_and_a_wrong_one_are_told_apart_and_the_right_one_scores_what_was_dropped(
    page: Page, url: str, images: list[Path]
) -> None:
    page.eval("document.getElementById('token').value = ''")
    page.drop_files("#drop", images[:2])
    field = page.eval("document.querySelector('label:has(#token)').textContent.trim().slice(0, 9)")
    assert said(page, "this endpoint asks for an API token").endswith(f"enter it in the field “{field}”")
    assert page.eval("document.activeElement.id") == "token"
    page.type_into("#token", "another-wrong-token")
    assert said(page, "this endpoint does not accept that API token").endswith(f"correct it in the field “{field}”")
    page.type_into("#token", "hüsh-hüsh-hüsh-hüsh")
    said(page, "an API token has no such characters")
    assert page.eval(f"{CARDS}.length") == 0
    page.type_into("#token", TOKEN)
    page.wait_for(f"{CARDS}.length === 2")
    assert page.eval("document.getElementById('status').className") == ""
    page.call("Runtime.evaluate", expression="1")
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(address.startswith((url, "blob:", "data:")) for address in asked)
    blocked = [e["params"]["entry"]["text"] for e in page.events if e["method"] == "Log.entryAdded"]
    assert not [text for text in blocked if "Content Security Policy" in text]


class InFront(BaseHTTPRequestHandler):
    """A proxy that gives the page, and answers as told before it passes anything on; None hangs up."""

    url: ClassVar[str]
    answers: ClassVar[list[tuple[int, str, bytes] | None]] = []

    def do_GET(self) -> None:
        if self.path == "/":
            self._give(200, "text/html", PAGE.read_bytes())
        else:
            answer = httpx2.get(self.url + self.path, headers=self._authorization(), timeout=60)
            self._give(answer.status_code, answer.headers["content-type"], answer.content)

    def _authorization(self) -> dict[str, str]:
        return {name: self.headers[name] for name in ("Authorization",) if name in self.headers}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = self.answers.pop(0) if self.answers else self._passed_on(body)
        if answer is not None:
            self._give(*answer)

    def _passed_on(self, body: bytes) -> tuple[int, str, bytes]:
        headers = {"Content-Type": self.headers["Content-Type"], **self._authorization()}
        answer = httpx2.post(self.url + self.path, content=body, headers=headers, timeout=60)
        return answer.status_code, answer.headers["content-type"], answer.content

    def _give(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def proxied(tab: Page, url: str) -> Iterator[Page]:
    """The page behind such a proxy, with the token entered."""
    InFront.url = url
    InFront.answers.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), InFront) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        tab.look_like(1100, 900)
        tab.open(f"http://127.0.0.1:{server.server_port}/")
        tab.eval(f"document.getElementById('token').value = '{TOKEN}'")
        yield tab
        tab.open("about:blank")  # lets go of its connections
        server.shutdown()
        thread.join()


HTML = b"<html><head><title>413</title><style>a {}</style></head><body><h1>Not &amp; <b>this</b></h1></body></html>"


@pytest.mark.slow
@needs_chromium
def test_what_is_no_answer_of_the_endpoint_is_said_in_words(proxied: Page, images: list[Path]) -> None:
    told: list[tuple[tuple[int, str, bytes] | None, str]] = [
        ((413, "text/html", HTML), "413 Request Entity Too Large: that is too large for what stands in front"),
        ((502, "text/html", HTML), "what came (502 Bad Gateway) is no answer of this endpoint: Not & this"),
        ((401, "text/html", HTML), "what came (401 Unauthorized) is no answer of this endpoint"),
        ((200, "text/html", b""), "what came (200 OK) is no answer of this endpoint: nothing at all"),
        ((200, "application/json", b"[]"), "what came (200 OK) is no answer of this endpoint: []"),
        ((403, "application/json", b'{"error": {"message": "its own words"}}'), "its own words"),
        (None, "no answer to 0.1 MB: the endpoint cannot be reached, or hung up"),
    ]
    proxied.choose_files("#files", images[:1])
    proxied.wait_for(f"{CARDS}.length === 1")
    for answer, text in told:
        InFront.answers.append(answer)
        proxied.eval("say('')")
        proxied.choose_files("#files", images[:1])
        said(proxied, text)
    assert proxied.eval(f"{CARDS}.length") == 1, "what was there stays"
    proxied.eval("document.getElementById('again').click()")
    proxied.wait_for("document.getElementById('status').textContent.startsWith('1 scored')")
    assert proxied.eval("document.getElementById('again').disabled")


NOTE_WHAT_IS_SAID = """
window.told = [];
(status => new MutationObserver(() => told.push(`${status.className}: ${status.textContent}`)).observe(
  status, {childList: true, characterData: true, attributes: true, subtree: true}
))(document.getElementById('status'))
"""


@pytest.mark.slow
@needs_chromium
def test_a_busy_endpoint_is_asked_again_by_itself(proxied: Page, images: list[Path]) -> None:
    busy = b'{"error": {"code": "overloaded", "message": "too many requests at once"}}'
    InFront.answers.extend([(429, "application/json", busy), (503, "text/plain", b"not yet")])
    proxied.eval(NOTE_WHAT_IS_SAID)  # each stands there for a second, which a busy machine may not look in
    proxied.drop_files("#drop", images[:1])
    proxied.wait_for(f"{CARDS}.length === 1")
    assert [text for text in proxied.eval("told") if text.startswith("bad")] == [
        "bad: too many requests at once; trying again in 1 s",
        "bad: what came (503 Service Unavailable) is no answer of this endpoint: not yet; trying again in 1 s",
    ]


@pytest.mark.slow
@needs_chromium
def test_another_application_behind_the_address_is_noticed_by_an_answer_and_by_a_refusal(
    proxied: Page, images: list[Path]
) -> None:
    """A model that writes answers questions of one's own; one with a slot asks for its text."""
    shown = "document.querySelector('.reward, .reason').textContent"
    proxied.drop_files("#drop", images[:1])
    proxied.wait_for(f"{CARDS}.length === 1")
    assert proxied.eval("get('wonder').hidden && get('ask').hidden")
    with listening(TOKEN, rubric="perception-v1", fusion=None) as InFront.url:
        proxied.choose_files("#files", images[:2])  # with probs, which a written rubric refuses
        proxied.wait_for(f"{CARDS}.length === 2 && !get('wonder').hidden")
        proxied.type_into("#question", "What is it?")
        proxied.wait_for("document.querySelectorAll('.said').length === 2")
        with RewardClient(InFront.url, TOKEN) as client:
            wanted = {one.text for one in client.describe(images[:2], "What is it?")}
        assert set(proxied.eval("[...document.querySelectorAll('.said')].map(e => e.textContent)")) == wanted
        proxied.eval("window.before = shown; window.isDone = false")
        proxied.eval("Promise.all([score(shown.map(one => one.file)), ask()]).then(() => { isDone = true; })")
        proxied.wait_for("isDone")
        assert proxied.eval("shown !== before"), "a question leaves a scoring that is under way alone"
    with listening(TOKEN, rubric=str(UNEVEN.with_name("prompted.toml")), fusion=None) as InFront.url:
        proxied.choose_files("#files", images[:1])  # which the rubric asks a prompt for
        proxied.wait_for(f"!get('ask').hidden && get('wonder').hidden && {shown} === 'rejected: missing_text'")
        proxied.type_into("#prompt", "a hall")
        proxied.wait_for(f"Number({shown}) > 0")
    with listening(TOKEN, rubric="q-align", fusion=None) as InFront.url:
        proxied.choose_files("#files", images[:1])
        proxied.wait_for("get('domain').textContent.startsWith('Rubric q-align')")


def test_the_policy_allows_the_page_its_own_script_and_nothing_from_elsewhere() -> None:
    page = PAGE.read_bytes()
    policy = page_policy(page)
    assert "'unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert b"http://" not in page.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in page
    assert b"innerHTML" not in page
    assert b" onclick=" not in page
    assert b' style="' not in page
