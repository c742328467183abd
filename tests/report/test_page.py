"""The page in a real headless Chromium: it draws on a wide screen, on a phone and in the dark, and scrolls one way."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core.records import ImageLimits
from iqa_core.report.charts import Curve
from iqa_core.report.scoring_report import scoring_report
from iqa_core.report.thumbnails import thumbnail
from iqa_core.report.training_page import Answer, Chart, Example, Section, TrainingReport, render_training
from iqa_core.storage.storage import Storage
from iqa_core.tables.scores.score_table import open_score_table
from tests.selection.scored_corpora import write_scored_corpus

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]

DARK = "--blink-settings=preferredColorScheme=0"

Shot = Callable[..., "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"]


def chromium(*flags: str, page: Path, profile: Path) -> str:
    """What it prints; nothing of the network or of a user's profile is touched."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    corpus = write_scored_corpus(root)
    (corpus.scores / "run.json").write_text('{"rejected_by_reason": {}, "this_run": {"progress": [[1, 10], [2, 40]]}}')
    table = open_score_table(Storage(), str(corpus.scores))
    path = root / "report.html"
    path.write_bytes(scoring_report(table, table))
    return path


@pytest.fixture(scope="module")
def training_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with two curves, and an answer as long as a page is wide."""
    lines = [Curve(name, [(step, step % 7 + 9 * above) for step in range(60)]) for above, name in enumerate("ab")]
    answers = [Answer(step, f"{'long ' * 80}{'x' * 300}", {"quality": 3.0}) for step in (10, 20)]
    room = resources.files("iqa_core.assessor") / "samples" / "room-0062.png"
    picture = thumbnail(room.read_bytes(), ImageLimits())
    assert picture is not None
    example = Example("room.png", picture, {"quality": 2.0}, answers)
    sections = [Section("Validation", [Chart("SRCC", lines), Chart("loss", lines[:1])])]
    path = tmp_path_factory.mktemp("training") / "report.html"
    path.write_bytes(render_training(TrainingReport("Training runs/a", [], [("step 3", "why")], sections, [example])))
    return path


@pytest.fixture
def shot(page: Path, tmp_path: Path) -> Shot:
    """Pixels (H, W, 3) of a window of this size, of the page about scores or of another."""

    def take(width: int, height: int, *flags: str, of: Path = page) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        target = tmp_path / "shot.png"
        chromium(f"--screenshot={target}", f"--window-size={width},{height}", *flags, page=of, profile=tmp_path / "p")
        return np.asarray(Image.open(target).convert("RGB"))

    return take


def on_a_phone(page: Path, folder: Path) -> str:
    """How wide it is there, in a few words.

    Chromium's window is 500 pixels wide at least, so a frame of a phone's width holds the page.
    """
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="{page.as_uri()}" width="360" height="800"></iframe><p id="wide"></p><script>'
        "f.onload = () => { const page = f.contentDocument.documentElement;"
        "wide.textContent = `inner ${page.scrollWidth} of ${page.clientWidth}`; }</script>"
    )
    flags = ("--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000")
    return chromium(*flags, page=frame, profile=folder / "p")


def test_a_wide_screen_shows_bars_and_pictures(shot: Shot) -> None:
    pixels = shot(1200, 2400)
    assert pixels.shape == (2400, 1200, 3)
    assert (pixels[0, 0] == 255).all(), "light paper"
    bars = (pixels == (0x2F, 0x6F, 0xB3)).all(axis=2)
    assert bars.sum() > 2000, "the histograms' bars are drawn"
    assert bars[:, 600:].any(), "charts stand side by side"


def test_the_dark_is_dark_and_its_text_can_be_read(shot: Shot) -> None:
    pixels = shot(1200, 900, DARK)
    assert (pixels[0, 0] == (0x14, 0x17, 0x1B)).all()
    assert pixels.max() > 220, "light ink"
    assert (pixels == (0x6A, 0xA5, 0xE3)).all(axis=2).sum() > 1000, "lighter bars"


def test_a_phone_needs_no_scrolling_to_the_side(page: Path, tmp_path: Path) -> None:
    assert "inner 360 of 360" in on_a_phone(page, tmp_path)


def test_a_training_has_curves_in_the_dark_and_fits_a_phone(training_page: Path, shot: Shot, tmp_path: Path) -> None:
    pixels = shot(1200, 1000, DARK, of=training_page)
    for colour in ((0x6A, 0xA5, 0xE3), (0xE0, 0xA2, 0x63)):
        assert (pixels == colour).all(axis=2).sum() > 200, "one line is blue, the other orange"
    assert "inner 360 of 360" in on_a_phone(training_page, tmp_path)


def test_every_picture_and_chart_has_words(page: Path, tmp_path: Path) -> None:
    dom = chromium("--dump-dom", page=page, profile=tmp_path / "p")
    assert dom.count("<img ") == dom.count(' alt="') > 20
    assert dom.count("<svg ") == dom.count('role="img" aria-label="') >= 4
    assert 'alt=""' not in dom
