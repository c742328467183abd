"""A job looks at its checkpoint before it starts: a warning, or with --strict-check a refusal that writes nothing. That
a sound one is scored without a word is seen in test_score_corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.__main__ import main
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
def test_a_fault_is_a_warning_that_stays_with_the_table(
    corpus: Path, broken: Path, tmp_path: Path, ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = score(corpus, tmp_path / "out", ray_address, "--assessor.checkpoint", broken)
    assert code == 0, printed
    assert "warning: own answer: said by itself: layout 0/3" in printed
    assert "--strict-check" in printed
    found = running.read_run(tmp_path / "out")["warnings"]
    assert found[0].startswith("own answer: said by itself: layout 0/3")
    # a run that looks at nothing, since nothing is left to do, does not forget
    code, printed = score(corpus, tmp_path / "out", ray_address, "--assessor.checkpoint", broken, "--no-check")
    assert code == 0, printed
    assert running.read_run(tmp_path / "out")["warnings"] == found
    capsys.readouterr()
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "warning    own answer: said by itself" in capsys.readouterr().out
    assert "own answer: said by itself" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.ray
def test_a_fault_is_a_refusal_when_asked_for(corpus: Path, broken: Path, tmp_path: Path, ray_address: str) -> None:
    code, printed = score(corpus, tmp_path / "out", ray_address, "--assessor.checkpoint", broken, "--strict-check")
    assert code == 2, printed
    assert printed.splitlines()[-1].startswith("error: the checkpoint fails its check: own answer")
    assert not (tmp_path / "out").exists()
