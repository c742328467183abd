"""Settings and tokens: what is taken, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from serve.settings import parse, token_digest, token_digests

TOKEN = "correct-horse-battery"


def test_dotted_keys_are_nested_as_on_a_command_line() -> None:
    settings = parse({"assessor.checkpoint": "fake:", "assessor.batch_tokens": "512", "max_images": "8"})
    assert settings.assessor.checkpoint == "fake:"
    assert settings.assessor.batch_tokens == 512
    assert settings.max_images == 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_image": 8}, "max_image: Extra inputs"),
        ({"assessor.checkpint": "demo"}, "assessor.checkpint: Extra inputs"),
        ({"max_images": 0}, "max_images: Input should be greater"),
        ({"uri_allow": ["https://images.example.org/made"]}, "slash at the end"),
        ({"uri_allow": ["file:///etc/"]}, "schemes are https, http, s3"),
        ({"uri_allow": ["https://user@host/"]}, "is no prefix"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        parse(given)


def test_uri_rules_end_with_a_slash() -> None:
    assert parse({"uri_allow": ["https://images.example.org/made/", "s3://bucket/"]}).uri_allow


def test_tokens_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}-3\n\n{TOKEN}-4\n")
    found = token_digests({"IQA_API_TOKENS": f"{TOKEN}-1, {TOKEN}-2", "IQA_API_TOKENS_FILE": str(path)})
    assert found == tuple(token_digest(f"{TOKEN}-{i}") for i in (1, 2, 3, 4))
    assert token_digests({}) == ()
    assert not any(TOKEN in digest for digest in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("short", "at least 16"),
        ("ein-schlüssel-der-lang-genug-ist", "ASCII"),
        ("\n", "holds no token"),
        (None, "cannot be read"),
    ],
)
def test_bad_tokens_are_refused_without_being_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CallerError, match=said) as caught:
        token_digests({"IQA_API_TOKENS_FILE": str(path)})
    assert content is None or content.strip() == "" or content not in str(caught.value)
