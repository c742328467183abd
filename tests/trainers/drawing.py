"""Completion -> image; also in the environments of other libraries, which have Pillow but not this project."""

from __future__ import annotations

from io import BytesIO
from typing import Any


def draw(prompts: list[Any], completions: list[Any], **columns: Any) -> list[bytes | None]:
    """A number is a plain picture of that grey, a question mark a broken file, and anything else no image."""
    return [picture(int(text)) if text.isdigit() else b"broken" if text == "?" else None for text in completions]


def picture(grey: int) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (24, 24), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()
