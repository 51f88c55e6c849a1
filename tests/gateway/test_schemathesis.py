"""The OpenAPI document against the server: made-up requests of every operation, right and wrong.

Each answer has to have a documented status, content type and body; none may be a 5xx. 503 is
documented, but nothing here loads, drains or overloads, so it fails too. Requests that are meant
to be right are steered (``schema_steering``), so that every operation succeeds as well.

``SCHEMATHESIS_EXAMPLES`` sets how many requests are made up per operation with a body, and a third
of them for each one without. ``SCHEMATHESIS_COVERAGE=1`` adds the boundary cases of each field.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from encoder_checkpoints import word_piece
from hypothesis import HealthCheck, settings
from schema_steering import CHATTER, EMBEDDER, Steering
from schemathesis.checks import CHECKS, load_all_checks
from server_process import PATIENCE_S, NewServer, ServerProcess
from table_encoder import write_table_encoder

from gateway.app import build_app
from gateway.settings import Settings
from gateway.state import new_state

KEY = "planted-secret-key-number-one"
ADMIN_KEY = "planted-secret-key-for-admins"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "120"))
COVERAGE = os.environ.get("SCHEMATHESIS_COVERAGE", "") == "1"
# Whether there is something left to cancel is a matter of time; test_responses_life.py and
# test_batches.py hold what they cancel.
MAY_HAVE_ENDED = {"/v1/responses/{response_id}/cancel", "/v1/batches/{batch_id}/cancel"}

load_all_checks()
# A request may fit the schema and still be refused: for a token beyond the vocabulary, say.
# The check for keys takes a configured key for a made-up one; test_access.py has its own.
LEFT_OUT = CHECKS.get_by_names(["positive_data_acceptance", "ignored_auth"])


def document() -> dict[str, Any]:
    return build_app(new_state(Settings(_env_file=None))).cold.openapi()


def with_whole_events(described: dict[str, Any]) -> dict[str, Any]:
    """Ours describes the JSON in a stream's events, as OpenAI's document does; schemathesis asks
    for the events around it."""
    for methods in described["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                stream = response.get("content", {}).get("text/event-stream")
                if stream is not None:
                    document = {"contentMediaType": "application/json"}
                    document |= {"contentSchema": stream["schema"]}
                    data = {"type": "string", "anyOf": [{"const": "[DONE]"}, document]}
                    stream["schema"] = {"type": "object", "properties": {"data": data}}
    return described


schema = schemathesis.openapi.from_dict(with_whole_events(document()))
schema.config.phases.coverage.enabled = COVERAGE
schema.config.generation.update(
    modes=list(schemathesis.GenerationMode), with_security_parameters=False
)
MADE_UP = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seen: dict[tuple[str, str], set[int]] = defaultdict(set)


@pytest.fixture(scope="module")
def everything(
    shared_server: NewServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Steering]]:
    """A server with a model for every operation, and what steers requests to it."""
    encoder = write_table_encoder(
        tmp_path_factory.mktemp("encoder") / "table",
        word_piece(),
        vocabulary=300,
        dimension=8,
        longest=64,
    )
    embedder = {"model_name": str(encoder), "served_model_name": EMBEDDER, "engine": "onnx"}
    server = shared_server(
        ENGINE="onnx",
        MAX_MODEL_LEN="128",
        SERVED_MODEL_NAME=CHATTER,
        MODELS=json.dumps([embedder]),
        API_KEYS=KEY,
        ADMIN_KEYS=ADMIN_KEY,
    )
    steering = Steering(server, KEY, ADMIN_KEY)
    yield server, steering
    steering.close()


def check(case: schemathesis.Case, server: ServerProcess, steering: Steering) -> None:
    steering.steer(case)
    key = ADMIN_KEY if case.path.startswith("/admin/") else KEY
    headers = {"Authorization": f"Bearer {key}"}
    response = case.call(base_url=server.url, headers=headers, timeout=PATIENCE_S)
    seen[case.path, case.method.lower()].add(response.status_code)
    assert response.status_code < 500, response.text
    case.validate_response(response, excluded_checks=LEFT_OUT, headers=headers)


def has_body(context: Any) -> bool:
    return "requestBody" in context.operation.definition.raw


@schema.include(has_body).parametrize()
@MADE_UP
def test_bodies_are_answered_as_documented(
    case: schemathesis.Case, everything: tuple[ServerProcess, Steering]
) -> None:
    check(case, *everything)


@schema.exclude(has_body).parametrize()
@settings(MADE_UP, max_examples=max(1, EXAMPLES // 3))
def test_answers_are_as_documented(
    case: schemathesis.Case, everything: tuple[ServerProcess, Steering]
) -> None:
    check(case, *everything)


def test_every_operation_has_been_tried_and_has_succeeded() -> None:
    operations = {(path, m) for path, methods in document()["paths"].items() for m in methods}
    if len(seen) == 0:
        pytest.skip("the tests that try them were left out")
    assert set(seen) == operations
    failed = {key for key, statuses in seen.items() if min(statuses) >= 300}
    assert {path for path, _ in failed} <= MAY_HAVE_ENDED


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/chat/completions"])
def test_the_document_names_its_parts(path: str) -> None:
    for operation in document()["paths"][path].values():
        assert operation["summary"]
        assert "422" not in operation["responses"]
        assert operation["responses"]["200"]["content"]


def test_a_refused_method_names_those_that_fit(
    everything: tuple[ServerProcess, Steering],
) -> None:
    for path, methods in document()["paths"].items():
        if "{" not in path:
            headers = {"x-api-key": ADMIN_KEY}
            reply = httpx.options(f"{everything[0].url}{path}", headers=headers)
            assert reply.status_code == 405
            allowed = set(reply.headers["allow"].lower().split(", "))
            assert allowed - {"head"} == set(methods), path
