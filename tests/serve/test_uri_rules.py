"""Which URIs a rule allows: none that one server reads otherwise than another."""

from __future__ import annotations

import pytest

from serve.uri_rules import FetchableUri, UriRule, allowed

RULES = tuple(map(UriRule.parse, ("https://images.example.org/made/", "s3://bucket/made/", "http://10.0.0.5:8080/")))


@pytest.mark.parametrize(
    "uri",
    [
        "https://images.example.org/made/a.png",
        "HTTPS://Images.Example.ORG:443/made/a.png?seed=3&of=100%25",
        "https://images.example.org/made/K%C3%BCche%20mit%20Fenster%2c%202.png",
        "https://images.example.org/made//a..b/.hidden/~x/@,=&$'()*!.png",
        "s3://bucket/made/a+b.png",
        "http://10.0.0.5:8080/a.png",
    ],
)
def test_what_lies_below_a_rule_is_allowed(uri: str) -> None:
    assert allowed(uri, RULES)


DOTS = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    "%252e%252e",
    "%u002e%u002e",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae.",
]
ALIKE = [
    "..;",
    "..;x=1",
    "..%3bx",
    "..%00",
    "..%20",
    "..%09",
    "..%3f",
    "..%23",
    "...",
    "..+",
    "..%0d%0a",
    "%a0..",
    "..%c2%a0",
]
WIDE = [
    "%ef%bc%8e%ef%bc%8e",
    "%e2%80%a5",
    "%e2%80%a4%e2%80%a4",
    "..%ef%bc%8fsecret",
    "..%e2%88%95secret",
    "..%c2%a5secret",
]
MARKS = [
    "..%2fsecret",
    "..%5csecret",
    "..\\secret",
    "a;x",
    "a%3bx",
    "%",
    "%2",
    "%zz",
    "%u0041",
    "%C0%AF",
    "a\tb",
    "a%7fb",
    "a%c2%85b",
]


@pytest.mark.parametrize("segment", DOTS + ALIKE + WIDE + MARKS)
@pytest.mark.parametrize("place", ["{}/secret", "{}", "a/{}/secret", "{}/"])
def test_a_path_that_servers_read_in_two_ways_is_not_allowed(segment: str, place: str) -> None:
    """Tomcat and Jetty cut `;…` off, IIS reads %u and wide characters, Windows drops dots and spaces at the end, old
    servers decode overlong UTF-8, and some decode twice."""
    for beginning in ("https://images.example.org/made/", "s3://bucket/made/"):
        assert allowed(beginning + place.format(segment), RULES) is None


@pytest.mark.parametrize("query", ["a%0d%0aHost:%20evil", "a%00", "a\\b", "%u000d", "%", "a%7f", "a#b", "#"])
def test_a_query_has_no_control_characters_and_no_half_escapes(query: str) -> None:
    assert allowed(f"https://images.example.org/made/a.png?{query}", RULES) is None


def test_a_rule_is_as_plain_as_a_uri() -> None:
    for prefix in ("https://h/a;b/", "https://h/%2e%2e/", "https://h/a", "https://h/a/?x", "ftp://h/", "https://u@h/"):
        with pytest.raises(ValueError, match="is no prefix of URIs"):
            UriRule.parse(prefix)


def test_the_uri_of_an_object_is_a_bucket_and_a_key() -> None:
    assert FetchableUri.parse("s3://bucket/made/a.png") == FetchableUri("s3", "bucket", 0, "/made/a.png")
    assert FetchableUri.parse("s3://bucket:1/made/a.png") is None
    assert FetchableUri.parse("s3://bucket/made/a.png?versionId=1") is None
