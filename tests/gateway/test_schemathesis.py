"""The OpenAPI document against the server: made-up requests of every operation, right and wrong.

Each answer has to have a documented status, content type and body; none may be a 5xx. 503 is
documented, but nothing here loads, drains or overloads, so it fails too.

``SCHEMATHESIS_EXAMPLES`` sets how many requests are made up per operation, beside the
boundary cases of each field, which ``SCHEMATHESIS_COVERAGE=1`` adds.
"""

import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks
from server_process import PATIENCE_S, NewServer

from gateway.app import build_app
from gateway.settings import Settings
from gateway.state import new_state

KEY = "planted-secret-key-number-one"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))
COVERAGE = os.environ.get("SCHEMATHESIS_COVERAGE", "") == "1"

load_all_checks()
# A request may fit the schema and still be refused: for a token beyond the vocabulary, say.
# The check for keys takes a configured key for a made-up one; test_access.py has its own.
LEFT_OUT = CHECKS.get_by_names(["positive_data_acceptance", "ignored_auth"])


def document() -> dict[str, Any]:
    return build_app(new_state(Settings(_env_file=None))).cold.openapi()


schema = schemathesis.openapi.from_dict(document())
schema.config.update(headers={"Authorization": f"Bearer {KEY}"})
schema.config.phases.coverage.enabled = COVERAGE
schema.config.generation.update(
    modes=list(schemathesis.GenerationMode), with_security_parameters=False
)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case: schemathesis.Case, shared_server: NewServer) -> None:
    server = shared_server(ENGINE="onnx", MAX_MODEL_LEN="128", API_KEYS=KEY)
    response = case.call(base_url=server.url, timeout=PATIENCE_S)
    assert response.status_code < 500, response.text
    case.validate_response(response, excluded_checks=LEFT_OUT)


def test_every_operation_is_tried() -> None:
    tried = {(result.ok().path, result.ok().method) for result in schema.get_all_operations()}
    assert tried == {(path, m) for path, methods in document()["paths"].items() for m in methods}


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/chat/completions"])
def test_the_document_names_its_parts(path: str) -> None:
    for operation in document()["paths"][path].values():
        assert operation["summary"]
        assert "422" not in operation["responses"]
        assert operation["responses"]["200"]["content"]


def test_a_refused_method_names_those_that_fit(shared_server: NewServer) -> None:
    server = shared_server(ENGINE="onnx", MAX_MODEL_LEN="128", API_KEYS=KEY)
    for path, methods in document()["paths"].items():
        if "{" not in path:
            reply = httpx.options(f"{server.url}{path}", headers={"x-api-key": KEY})
            assert reply.status_code == 405
            allowed = set(reply.headers["allow"].lower().split(", "))
            assert allowed - {"head"} == set(methods), path
