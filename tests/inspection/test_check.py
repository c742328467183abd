"""Faults that give plausible scores and no error -> each is found, and a sound checkpoint passes.

Tests iqa_core/inspection/commands.py.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from iqa_core.__main__ import main
from iqa_core.assessor.checkpoint.manifest import GoldenScores, read_manifest, save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.inspection.check import is_said, quick_check
from iqa_core.inspection.findings import Finding, Verdict, failed, finding_lines

pytestmark = pytest.mark.slow


def described(folder: Path | str, rubric: str | None = None) -> tuple[AssessorSpec, AssessorConfig]:
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    return describe(config, rubric, own_limits(config)), config


def looked_at(folder: Path, rubric: str | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in quick_check(*described(folder, rubric))}


def changed(folder: Path, tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A copy of a checkpoint with a text of one of its files replaced."""
    copy = Path(shutil.copytree(folder, tmp_path / "changed"))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    return copy


def test_a_sound_checkpoint_passes(speaking: Path) -> None:
    found = looked_at(speaking)
    assert {name: finding.verdict for name, finding in found.items()} == {
        "rubric": "ok",
        "level words": "ok",
        "own answer": "ok",
        "level mass": "ok",
        "spread": "ok",
        "golden scores": "skipped",
    }
    assert "layout 3/3, lighting 3/3" in found["own answer"].said


def test_another_chat_template_is_found_and_what_is_said_instead_is_shown(speaking: Path, tmp_path: Path) -> None:
    """Only the model's own words show it: mass and spread behind the given beginning stay as they were."""
    broken = changed(speaking, tmp_path, "chat_template.jinja", "<|im_start|>assistant\n", "Reply:")
    found = looked_at(broken)
    assert {name for name, finding in found.items() if finding.verdict is Verdict.FAIL} == {"own answer"}
    assert "layout 0/3" in found["own answer"].said
    assert "it says '" in found["own answer"].said


def test_a_space_before_the_answer_is_nothing_that_a_model_says() -> None:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["The room is", " The room is"] * 9, vocab_size=300, show_progress=False)
    plain, spaced, other = (tokenizer.encode(text).ids for text in ("The room is", " The room is", "The room The"))
    assert len(plain) == len(spaced)
    assert is_said(tokenizer, plain, spaced)
    assert is_said(tokenizer, spaced, spaced)
    assert not is_said(tokenizer, spaced, plain)
    assert not is_said(tokenizer, other, spaced)


def test_another_rubric_is_found(speaking: Path) -> None:
    assert looked_at(speaking, "interior-v1")["own answer"].verdict is Verdict.FAIL


def test_an_untuned_model_is_found(untuned: Path) -> None:
    found = looked_at(untuned)
    assert found["own answer"].verdict is Verdict.FAIL
    assert found["level mass"].verdict is Verdict.FAIL


def test_a_model_that_does_not_see_the_image_is_found(blind: Path) -> None:
    found = looked_at(blind)
    assert found["own answer"].verdict is Verdict.OK
    assert found["spread"].verdict is Verdict.FAIL
    assert "3.00 to 3.00" in found["spread"].said


def test_level_words_with_the_same_first_token_end_the_check(speaking: Path, tmp_path: Path) -> None:
    clashing = changed(speaking, tmp_path, "speaking.toml", '"bad", "poor"', '"good-", "good:"')
    findings = quick_check(*described(clashing))
    assert [finding.name for finding in findings] == ["rubric", "level words"]
    assert findings[1].verdict is Verdict.FAIL
    assert findings[1].forbids_loading
    assert "'good-', 'good:', 'good'" in findings[1].said


def test_a_level_word_of_several_tokens_is_a_warning(speaking: Path, tmp_path: Path) -> None:
    longer = changed(speaking, tmp_path, "speaking.toml", '"excellent"', '"wonderful"')
    found = looked_at(longer)["level words"]
    assert (found.verdict, found.said) == ("warning", "wonderful: several tokens, of which the first is read")


def test_answers_of_a_rubrics_own_are_not_called_levels(speaking: Path, tmp_path: Path) -> None:
    dimension = 'name = "fine"\nquery = "Is it fine?"\nanswers = { poor = 0, good = 1 }'
    about = 'id = "fine"\ndomain = "any"\nprompt_version = 1\ndescription = "any"\nanswer_prefix = "It is"'
    (tmp_path / "fine.toml").write_text(f"{about}\n[[dimensions]]\n{dimension}\n")
    found = looked_at(speaking, str(tmp_path / "fine.toml"))
    assert found["answers"].said == "poor, good: one token each, all different"
    assert "and one of its answers" in found["own answer"].said
    assert not [finding for name, finding in found.items() if "level" in name or "level word" in finding.said]
    assert "answer mass" in found


def test_golden_scores_are_compared(speaking: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(speaking, tmp_path / "sealed"))
    manifest = write_manifest(folder, "speaking.toml", "float32", threads=1)
    found = looked_at(folder)
    assert found["golden scores"].verdict is Verdict.OK
    assert found["rubric"].said == "speaking, the one that it was trained on"
    wrong = GoldenScores(image=manifest.golden[1].image, scores={"layout": 4.9, "lighting": 4.9})
    save_manifest(folder, manifest.model_copy(update={"golden": (manifest.golden[0], wrong)}))
    found = looked_at(folder)
    assert found["golden scores"].verdict is Verdict.FAIL
    assert found["golden scores"].forbids_loading
    assert "room-0617: layout is" in found["golden scores"].said
    assert looked_at(folder, "interior-v1")["rubric"].verdict is Verdict.WARNING


def test_a_model_trained_on_levels_alone_need_not_say_the_sentence(speaking: Path, tmp_path: Path) -> None:
    broken = changed(speaking, tmp_path, "chat_template.jinja", "<|im_start|>assistant\n", "Reply:")
    manifest = read_manifest(broken)
    assert manifest is not None
    save_manifest(broken, manifest.model_copy(update={"trained_on": "level"}))
    found = looked_at(broken)["own answer"]
    assert found.verdict is Verdict.OK
    assert "all that it was trained on" in found.said


def test_the_whole_check_as_a_command(speaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It also holds the assessor against the plain forward."""
    assert main(["check", "--checkpoint", str(speaking), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^own answer +ok +said by itself: layout 10/10, lighting 10/10$", printed, re.MULTILINE)
    assert re.search(r"^short cuts +ok +at most 0\.0000\d\d from the plain forward", printed, re.MULTILINE)
    assert printed.endswith("verdict        pass\n")


def test_the_table_ends_with_a_verdict() -> None:
    good, odd, bad = (Finding("thing", verdict, "said") for verdict in (Verdict.OK, Verdict.WARNING, Verdict.FAIL))
    assert list(finding_lines([good]))[-1] == "verdict        pass"
    assert list(finding_lines([good, odd]))[-1] == "verdict        pass, 1 warning"
    assert list(finding_lines([good, odd, bad]))[-1] == "verdict        FAIL"
    assert not failed([good, odd])


def test_the_exit_code_is_1_for_a_fault_and_2_for_a_mistake(
    speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clashing = changed(speaking, tmp_path, "speaking.toml", '"bad", "poor"', '"good-", "good:"')
    assert main(["check", "--checkpoint", str(clashing), "--threads", "1"]) == 1
    assert capsys.readouterr().out.endswith("verdict        FAIL\n")
    mistakes = [
        (["--checkpoint", "fake:"], "no model"),
        (["--checkpoint", str(tmp_path)], "lacks config.json"),
        (["--checkpoint", str(speaking), "--rubric", "interior-v9"], "no rubric"),
        (["--threads", "0"], "1 or more"),
        (["--output", str(tmp_path)], "belong to --ladder"),
        (["--ladder", str(tmp_path)], "needs --output"),
    ]
    for flags, message in mistakes:
        assert main(["check", *flags]) == 2
        assert message in capsys.readouterr().err


def test_nothing_is_loaded_for_a_fake() -> None:
    with pytest.raises(CallerError, match="no model"):
        quick_check(*described("fake:"))


def test_the_shipped_demo_passes_what_a_job_looks_at() -> None:
    findings: list[Any] = quick_check(*described("demo"))
    assert [finding.verdict for finding in findings] == ["ok"] * 6
