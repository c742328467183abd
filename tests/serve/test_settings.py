"""Settings: what is taken, and what is refused by name."""

from __future__ import annotations

import pytest

from iqa_core.errors import CallerError
from serve.settings import parse


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
        ({"max_pending_pixels": 200_000_000}, "max_pending_pixels is no setting; give max_decode_bytes"),
        ({"max_body_bytes": 4096, "max_pending_bytes": 4096}, "raise max_pending_bytes to 8192 or lower"),
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
