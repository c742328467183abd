"""Names with options -> their parts."""

from __future__ import annotations

import pytest

from iqa_core.addresses import Address, parse_address

KINDS = frozenset({"sa-bench", "fake"})


@pytest.mark.parametrize(
    ("text", "kind", "place", "options"),
    [
        ("sa-bench:data/SA-BENCH?prompt=4", "sa-bench", "data/SA-BENCH", {"prompt": "4"}),
        ("sa-bench:a?b?split=test&x=", "sa-bench", "a?b", {"split": "test", "x": ""}),
        ("fake:", "fake", "", {}),
        ("s3://bucket/a.csv?worst=0", "", "s3://bucket/a.csv", {"worst": "0"}),
        ("interior-v4", "", "interior-v4", {}),
        ("a%20b?c=%20", "", "a%20b", {"c": " "}),
    ],
)
def test_a_name_falls_into_its_parts(text: str, kind: str, place: str, options: dict[str, str]) -> None:
    assert parse_address(text, KINDS) == Address(kind, place, options)


@pytest.mark.parametrize("text", ["fake:?a=1&a=2", "fake:?a", "fake:?a=1&&b=2"])
def test_options_that_are_not_pairs_or_come_twice_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|bad query"):
        parse_address(text, KINDS)
