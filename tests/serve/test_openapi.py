"""Requests made up from the OpenAPI document, and against it: none may end in a server error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.serve.local import listening

pytestmark = [
    pytest.mark.slow,
    # of schemathesis itself, at import and while it makes up bodies
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

EXAMPLES = 8
"""Per operation; eleven operations, four of them also with what is wrong."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as found:
        yield found


def test_no_made_up_request_is_a_server_error(url: str) -> None:
    import schemathesis
    from schemathesis.checks import not_a_server_error

    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen: set[str] = set()
    for found in document.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        seen.add(operation.label)
        _run(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE), not_a_server_error)
        if operation.method == "post":  # in the others there is nothing to get wrong
            _run(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), not_a_server_error)
    assert {"POST /v1/assess", "POST /v1/rank", "POST /score", "POST /compute", "GET /v1/models"} <= seen


def _run(strategy: Any, check: Any) -> None:
    from hypothesis import given

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def ask(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=[check])

    ask()
