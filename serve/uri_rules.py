"""A caller's URI -> whether it may be fetched at all: an allow-list of prefixes, empty by default.

A rule is a scheme, a host (or bucket) and the beginning of a path. A URI that one server reads otherwise than another
(see `leads_one_way`), or that has a user name, a back-slash or control characters, matches no rule.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

SCHEMES = ("https", "http", "s3")
PORTS = {"https": 443, "http": 80, "s3": 0}

_PLAIN = re.compile(r"[!-~]+\Z")
_NO_ESCAPE = r"%(?![0-9a-f]{2})"  # %u002e among them, which IIS takes for a dot
_ESCAPED = re.compile(rf"%2[ef]|{_NO_ESCAPE}", re.IGNORECASE)
_MARKS = re.compile(r"[\x00-\x1f\x7f-\x9f%?#;\\∕⁄∖¥₩]|(?:^|/)[.\s+]+(?:/|$)")
"""Found in a decoded path: what ends a segment early, or is a slash to Windows; segments of nothing but dots and
spaces, which Windows drops from a segment's end."""
_QUERY_MARKS = re.compile(rf"\\|%(?:[01][0-9a-f]|7f)|{_NO_ESCAPE}", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z|\[[0-9a-f:]+\]\Z")

MAX_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class FetchableUri:
    """A URI taken apart; every server takes it apart so."""

    scheme: str
    host: str
    """Lower case, without brackets; a bucket for s3."""
    port: int
    target: str
    """Path and query as they are sent."""

    @classmethod
    def parse(cls, uri: str) -> FetchableUri | None:
        """None for whatever is not plainly scheme, host and path."""
        if len(uri) > MAX_CHARACTERS or not _PLAIN.match(uri) or "#" in uri:
            return None
        try:
            parts = urlsplit(uri)
            return cls._of(parts)
        except ValueError:  # brackets or port that are none
            return None

    @classmethod
    def _of(cls, parts: SplitResult) -> FetchableUri | None:
        name = parts.netloc.rsplit(":", 1)[0] if parts.port is not None else parts.netloc
        if parts.scheme not in SCHEMES or not _HOST.match(name.lower()) or not leads_one_way(parts.path):
            return None
        if _QUERY_MARKS.search(parts.query):
            return None
        if parts.scheme == "s3" and (parts.port or parts.query):
            return None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, name.lower().strip("[]"), parts.port or PORTS[parts.scheme], target)


def leads_one_way(path: str) -> bool:
    """Whether every server finds the same file at an escaped path.

    Not where dots or slashes are escaped (once, twice, as %u002e, as overlong or fullwidth UTF-8), and not with a `;`:
    Tomcat and Jetty take `..;x` for `..`, whatever a proxy in front of them has read.
    """
    if _ESCAPED.search(path):
        return False
    try:
        text = unicodedata.normalize("NFKC", unquote_to_bytes(path).decode())
    except UnicodeDecodeError:
        return False
    return text.count("/") == path.count("/") and not _MARKS.search(text)


@dataclass(frozen=True, slots=True)
class UriRule:
    """One prefix of the allow-list."""

    scheme: str
    host: str
    port: int
    path: str
    """Ends with a slash, so that `/made` does not allow `/made-by-others`."""

    @classmethod
    def parse(cls, prefix: str) -> UriRule:
        """Raises ValueError (a pydantic fault) on what is no prefix."""
        found = FetchableUri.parse(prefix)
        if found is None or "?" in found.target or not found.target.endswith("/"):
            raise ValueError(
                f"{prefix!r} is no prefix of URIs: write scheme://host/path/ with the slash at the end; "
                f"schemes are {', '.join(SCHEMES)}"
            )
        return cls(found.scheme, found.host, found.port, found.target)

    def allows(self, uri: FetchableUri) -> bool:
        """Whether a URI lies under the prefix."""
        same_place = (uri.scheme, uri.host, uri.port) == (self.scheme, self.host, self.port)
        return same_place and uri.target.startswith(self.path)


def allowed(uri: str, rules: tuple[UriRule, ...]) -> FetchableUri | None:
    """The URI taken apart, if a rule allows it."""
    found = FetchableUri.parse(uri)
    return found if found and any(rule.allows(found) for rule in rules) else None
