"""A flag that is given twice is an error that has both values, unless its values accumulate."""

from __future__ import annotations

import pytest

from iqa_core.errors import CallerError
from iqa_core.flags import StrictParser, json_object


class Parser(StrictParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise CallerError(message)


@pytest.fixture
def parser() -> Parser:
    parser = Parser()
    parser.add_argument("--name", default="none")
    parser.add_argument("--item", action="append")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--options", type=json_object, default={})
    return parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a", "--name", "b"], "--name is given twice, as 'a' and as 'b', and takes one value"),
        (["--name=a", "--fast", "--name", "b"], "as 'a' and as 'b'"),
        (["--name", "a", "--name", "a"], "--name is given twice"),
        (["--fast", "--fast"], "--fast is given twice"),
        (["--nam", "a"], "unrecognized arguments: --nam"),
    ],
)
def test_refused(parser: Parser, arguments: list[str], message: str) -> None:
    with pytest.raises(CallerError, match=message):
        parser.parse_args(arguments)


def test_what_may_be_secret_is_not_shown(parser: Parser) -> None:
    for arguments in (["--options", '{"secret": "hush"'], ["--options", '{"a": "hush"}'] * 2, ["--options", '"hush"']):
        with pytest.raises(CallerError) as caught:
            parser.parse_args(arguments)
        assert "--" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_taken(parser: Parser) -> None:
    found = parser.parse_args(["--item", "a", "--item=b", "--name", "--item-like text", "--options", '{"a": 1}'])
    assert (found.item, found.name, found.options) == (["a", "b"], "--item-like text", {"a": 1})
    assert parser.parse_args([]).name == "none"


def test_a_sub_command_is_as_strict(parser: Parser) -> None:
    commands = Parser().add_subparsers()
    inner = commands.add_parser("inner")
    inner.add_argument("--name")
    with pytest.raises(CallerError, match="'a' and as 'b'"):
        inner.parse_args(["--name", "a", "--name", "b"])
