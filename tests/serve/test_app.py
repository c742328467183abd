"""What keeps the application from being deployed, and an ingress from starting."""

from __future__ import annotations

import pytest
from ray.serve.exceptions import RayServeException

from iqa_core.errors import CallerError
from serve.app import app, check_door

TOKENS = {"IQA_API_TOKENS": "correct-horse-battery"}
FAKE = {"assessor.checkpoint": "fake:"}


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IQA_API_TOKENS", raising=False)


def test_the_command_of_a_submitted_job_needs_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app(FAKE)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(CallerError, match="does not start without API tokens"):
        app(FAKE)
    assert app({**FAKE, "open": "true"})
    monkeypatch.setenv("IQA_API_TOKENS", TOKENS["IQA_API_TOKENS"])
    assert app(FAKE)


def test_a_mistake_is_shown_by_ray_as_it_is_said() -> None:
    with pytest.raises(RayServeException, match=r"max_image: Extra inputs"):
        app({**FAKE, "max_image": "3"})


def test_an_address_that_others_reach_needs_a_token() -> None:
    check_door("127.0.0.1", (), is_open=False, environment={})
    check_door("0.0.0.0", ("digest",), is_open=False, environment={})
    check_door("0.0.0.0", (), is_open=True, environment={})
    for host in ("0.0.0.0", "::", "192.168.1.5", None):
        with pytest.raises(CallerError, match="IQA_API_TOKENS"):
            check_door(host, (), is_open=False, environment={})


def test_tokens_of_the_cluster_are_not_passed_over_where_the_builder_had_none() -> None:
    check_door("127.0.0.1", ("digest",), is_open=False, environment=TOKENS)
    with pytest.raises(CallerError, match="process that built the endpoint had none"):
        check_door("127.0.0.1", (), is_open=False, environment=TOKENS)
    with pytest.raises(CallerError, match="would ignore IQA_API_TOKENS"):
        check_door("127.0.0.1", (), is_open=True, environment=TOKENS)
