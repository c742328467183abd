"""Names with options -> their parts."""

from __future__ import annotations

import pytest

from iqa_core.addresses import Address, parse_address, parse_scores

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


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("scores:s3://bucket/out", ("s3://bucket/out", "")),
        ("scores:out?where=key LIKE '%20a+b?where=&c' ", ("out", "key LIKE '%20a+b?where=&c'")),
        ("s3://bucket/scores:out?where=x", None),
        ("scores/out", None),
    ],
)
def test_a_score_table_and_its_condition_are_taken_as_they_stand(text: str, parts: tuple[str, str] | None) -> None:
    assert parse_scores(text) == parts


@pytest.mark.parametrize("text", ["scores:", "scores:?where=x", "scores:out?where= ", "scores:out?were=x", "scores:?"])
def test_a_score_table_with_another_option_or_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"the only option|is empty"):
        parse_scores(text)
