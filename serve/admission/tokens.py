"""Environment, `open`, and where the application is built -> digests of its API tokens, or why it does not start.

The digests travel to the ingresses with the application: what decides is the environment in which it is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from iqa_core.errors import CallerError

TOKENS, TOKENS_FILE = "IQA_API_TOKENS", "IQA_API_TOKENS_FILE"
MIN_TOKEN_CHARACTERS = 16
"""Shorter ones can be guessed over a network."""


def asked_for(environment: Mapping[str, str], *, is_open: bool, in_cluster: bool) -> tuple[str, ...]:
    """Digests of the tokens that an application built in this environment asks for.

    None: everybody is served (is_open), or callers on the same machine alone. A process of the cluster without tokens
    is no such case: the command that deploys has an environment of its own, whose tokens never get there.
    Raises CallerError, which names no token.
    """
    if is_open:
        if given := [name for name in (TOKENS, TOKENS_FILE) if environment.get(name)]:
            raise CallerError(f"`open: true` would ignore {given[0]}, which is set; take one of them away")
        return ()
    digests = token_digests(environment)
    if in_cluster and not digests:
        raise CallerError(
            f"the endpoint does not start without API tokens: the process of the cluster that builds it has neither "
            f"{TOKENS} nor {TOKENS_FILE}, and the environment of a command that deploys to a running Ray does not get "
            "there. Set one of them where Ray is started on each node, or under `runtime_env: {env_vars: …}` of the "
            "application; or write `open: true` under its `args` to serve everybody"
        )
    return digests


def token_digests(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Digests of the accepted tokens; none if neither variable is set. Raises CallerError, which names no token."""
    tokens = [
        *_tokens(TOKENS, environment.get(TOKENS)),
        *_tokens(TOKENS_FILE, _content(environment.get(TOKENS_FILE))),
    ]
    if any(len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() for token in tokens):
        raise CallerError(f"an API token must have at least {MIN_TOKEN_CHARACTERS} characters, all of them ASCII")
    return tuple(map(token_digest, tokens))


def token_digest(token: str) -> str:
    """What is kept and compared instead of a token: settings travel through Ray, and may be seen there."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _tokens(variable: str, text: str | None) -> list[str]:
    """The tokens of one variable. Raises CallerError where it is set and holds none: a secret did not arrive."""
    tokens = [token.strip() for token in (text or "").replace("\n", ",").split(",") if token.strip()]
    if text is not None and not tokens:
        raise CallerError(f"{variable} is set and holds no token; give it one, or unset it")
    return tokens


def _content(path: str | None) -> str | None:
    if not path:
        return path
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(f"{TOKENS_FILE} {path} cannot be read where the application is built: {error}") from None
