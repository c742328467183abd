"""The playground in a real browser: files dropped and chosen, scores read, several ranked, by mouse and by keyboard."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqa_core.client import RewardClient
from serve.api import PAGE, page_policy
from tests.bad_images import png_claiming
from tests.corpora import tiny_png
from tests.serve.browser import CHROMIUM, Page, browser
from tests.serve.local import listening

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
    assert page.eval("document.querySelector('#cards img').naturalWidth") > 0
    assert "1 (worst) " in page.eval("document.querySelector('.levels').getAttribute('aria-label')")


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
def test_everything_is_reached_by_keyboard(page: Page, images: list[Path]) -> None:
    page.choose_files("#files", images[:2])
    page.wait_for(f"{CARDS}.length === 2")
    page.eval("document.activeElement.blur()")
    reached = []
    for _ in range(4):
        page.press("Tab")
        reached.append(page.eval("document.activeElement.id"))
    assert reached == ["files", "token", "curl", "clear"]
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


@pytest.mark.slow
@needs_chromium
def test_a_missing_token_is_said_and_nothing_is_asked_of_the_network(page: Page, url: str, images: list[Path]) -> None:
    page.eval("document.getElementById('token').value = ''")
    page.choose_files("#files", images[:1])
    page.wait_for("document.getElementById('status').className === 'bad'")
    assert "API token" in page.eval("document.getElementById('status').textContent")
    page.call("Runtime.evaluate", expression="1")
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(address.startswith((url, "blob:", "data:")) for address in asked)
    blocked = [e["params"]["entry"]["text"] for e in page.events if e["method"] == "Log.entryAdded"]
    assert not [text for text in blocked if "Content Security Policy" in text]


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
