"""A template beside this module and its values -> one HTML file that needs nothing else: no network, script or font."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def filled(template: str, title: str, facts: Sequence[tuple[str, str]], **values: Any) -> bytes:
    """The page, which begins with its title and facts; whatever comes from the data is escaped.

    So are names of files that are not UTF-8, which Python reads as lone surrogates.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values, title=title, facts=facts).encode(errors="backslashreplace")
