"""Command lines -> arguments, strictly: no abbreviations, and no flag twice unless its values accumulate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from iqa_core.errors import CallerError


def json_object(text: str) -> dict[str, Any]:
    """The object behind `--storage-options`. Raises CallerError, which does not show it: it may hold secrets."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CallerError(f"--storage-options: it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise CallerError('--storage-options: it is no JSON object; write it as {"key": "value"}')
    return found


class StrictParser(argparse.ArgumentParser):
    """An argument parser that refuses a flag given twice: no value silently replaces another."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; a flag given twice that does not accumulate is an error, with both values."""
        given = sys.argv[1:] if args is None else list(args)
        self._require_once(given)
        return super().parse_known_args(given, namespace)

    def _require_once(self, arguments: Sequence[str]) -> None:
        given: dict[str, tuple[str, str]] = {}
        for flag, action, value in self._given(arguments):
            if isinstance(action, argparse._AppendAction):
                continue
            if (before := given.get(action.dest)) is not None:
                self.error(_twice(*before, flag, value))
            given[action.dest] = (flag, value)

    def _given(self, arguments: Sequence[str]) -> Iterator[tuple[str, argparse.Action, str]]:
        """This parser's own flags in order, each with its value; the value of a switch or of a secret is empty."""
        for argument, following in zip(arguments, (*arguments, "")[1:], strict=True):
            if argument == "--":
                return
            flag, equals, value = argument.partition("=")
            if (action := self._option_string_actions.get(flag)) is not None:
                is_shown = action.nargs != 0 and action.type is not json_object
                yield flag, action, (value if equals else following) if is_shown else ""


def _twice(flag: str, value: str, again: str, other: str) -> str:
    if flag != again:
        return f"{flag} and {again} exclude each other; give one of them"
    values = f", as {value!r} and as {other!r}, and takes one value" if value or other else ""
    return f"{flag} is given twice{values}"
