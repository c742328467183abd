"""A job looks at its checkpoint before it starts: a warning, or with --strict-check a refusal that writes nothing. That
a sound one is scored without a word is seen in test_score_corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora import tiny_png, write_folder
from tests.inspection.speaking import save_speaking
from tests.jobs import running


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_folder(folder, {f"{index}.png": tiny_png(index) for index in range(3)})
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint under another chat template than it speaks."""
    folder = save_speaking(tmp_path_factory.mktemp("broken"))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant\n", "Reply:"))
    return folder


def score(corpus: Path, output: Path, address: str, *flags: object) -> tuple[int, str]:
    return running.run("--input", corpus, "--output", output, "--num-actors", 1, *flags, address=address)


@pytest.mark.ray
def test_a_fault_is_a_warning(corpus: Path, broken: Path, tmp_path: Path, ray_address: str) -> None:
    code, printed = score(corpus, tmp_path / "out", ray_address, "--assessor.checkpoint", broken)
    assert code == 0, printed
    assert "warning: own answer: said by itself: layout 0/3" in printed
    assert "--strict-check" in printed


@pytest.mark.ray
def test_a_fault_is_a_refusal_when_asked_for(corpus: Path, broken: Path, tmp_path: Path, ray_address: str) -> None:
    code, printed = score(corpus, tmp_path / "out", ray_address, "--assessor.checkpoint", broken, "--strict-check")
    assert code == 2, printed
    assert printed.splitlines()[-1].startswith("error: the checkpoint fails its check: own answer")
    assert not (tmp_path / "out").exists()
