"""docs/anthropic.md lists exactly what the code does, and OpenAPI has the routes."""

from typing import Any

from jsonschema import Draft202012Validator
from test_docs import documented, parameter_row

from gateway.api.openapi_messages import ERRORS, PATHS, SCHEMAS, STOP_REASONS
from gateway.app import build_cold_app
from gateway.protocol.anthropic_errors import TYPES
from gateway.protocol.anthropic_parameters import COUNT_TOKENS, MESSAGES
from gateway.settings import Settings
from gateway.state import new_state


def test_every_parameter_is_documented() -> None:
    rows = [parameter_row(parameter) for parameter in MESSAGES.values()]
    assert documented("anthropic.md", "| `") >= set(rows), "\n" + "\n".join(rows)
    assert set(COUNT_TOKENS) <= set(MESSAGES)


def test_every_error_type_is_documented() -> None:
    rows = {f"| {status} | `{kind}` |" for status, kind in TYPES.items()}
    assert documented("anthropic.md", "| ") >= rows
    assert set(ERRORS) - {"415"} <= {str(status) for status in TYPES}


def test_every_stop_reason_is_documented() -> None:
    rows = "\n".join(documented("anthropic.md", "| `"))
    assert all(f"| `{reason}` |" in rows for reason in STOP_REASONS)


def test_openapi_has_the_routes() -> None:
    document: dict[str, Any] = build_cold_app(new_state(Settings())).openapi()
    assert set(PATHS) <= set(document["paths"])
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert document["components"]["schemas"][name] == schema
