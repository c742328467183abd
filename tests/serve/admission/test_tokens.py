"""Which tokens an endpoint asks for, and when it does not start: by environment, `open`, and where it is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from serve.admission.tokens import asked_for, token_digest, token_digests

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize("in_cluster", [False, True])
def test_tokens_are_asked_for_wherever_it_is_built(in_cluster: bool) -> None:
    found = asked_for({"IQA_API_TOKENS": TOKEN}, is_open=False, in_cluster=in_cluster)
    assert found == (token_digest(TOKEN),)


def test_without_tokens_it_is_built_in_the_callers_own_process_only() -> None:
    assert asked_for({}, is_open=False, in_cluster=False) == ()
    with pytest.raises(CallerError) as caught:
        asked_for({}, is_open=False, in_cluster=True)
    for way_out in ("IQA_API_TOKENS ", "IQA_API_TOKENS_FILE", "runtime_env: {env_vars", "open: true"):
        assert way_out in str(caught.value)


@pytest.mark.parametrize("in_cluster", [False, True])
@pytest.mark.parametrize("name", ["IQA_API_TOKENS", "IQA_API_TOKENS_FILE"])
def test_open_is_without_tokens_and_together_with_them_refused(in_cluster: bool, name: str) -> None:
    assert asked_for({}, is_open=True, in_cluster=in_cluster) == ()
    assert asked_for({name: ""}, is_open=True, in_cluster=in_cluster) == ()
    with pytest.raises(CallerError, match=f"would ignore {name}, which is set"):
        asked_for({name: TOKEN}, is_open=True, in_cluster=in_cluster)


def test_tokens_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}-3\r\n\n{TOKEN}-4\n", encoding="utf-8-sig")
    found = token_digests({"IQA_API_TOKENS": f"{TOKEN}-1, {TOKEN}-2", "IQA_API_TOKENS_FILE": str(path)})
    assert found == tuple(token_digest(f"{TOKEN}-{i}") for i in (1, 2, 3, 4))
    assert token_digests({}) == ()
    assert not any(TOKEN in digest for digest in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("short", "at least 16"),
        ("ein-schlüssel-der-lang-genug-ist", "ASCII"),
        ("\n", "IQA_API_TOKENS_FILE is set and holds no token"),
        (None, "cannot be read"),
    ],
)
def test_bad_tokens_are_refused_without_being_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CallerError, match=said) as caught:
        token_digests({"IQA_API_TOKENS_FILE": str(path)})
    assert content is None or content.strip() == "" or content not in str(caught.value)


@pytest.mark.parametrize("name", ["IQA_API_TOKENS", "IQA_API_TOKENS_FILE"])
@pytest.mark.parametrize("given", ["", " , "])
def test_a_variable_that_is_set_to_nothing_is_a_secret_that_did_not_arrive(name: str, given: str) -> None:
    with pytest.raises(CallerError, match=f"{name} "):
        token_digests({name: given})
