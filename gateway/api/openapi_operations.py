"""Describes the answers of probes, models and operations, and what all operations share."""

from __future__ import annotations

import copy
from typing import Any

from gateway.protocol.values import Schema

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FRACTION: Schema = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
METHODS = frozenset({"get", "post", "put", "patch", "delete"})
PROBES = "health"
MODEL_REF = "#/components/schemas/Model"
ENGINE_REF = "#/components/schemas/Engine"
FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def record(properties: Schema, *optional: str) -> Schema:
    """An object schema whose fields are required except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def array(items: Schema) -> Schema:
    """An array of such items."""
    return {"type": "array", "items": items}


MODEL = record(
    {
        "id": TEXT,
        "object": {"const": "model"},
        "created": COUNT,
        "owned_by": TEXT,
        "root": TEXT,
        "task": {"enum": ["generation", "embeddings"]},
        "max_model_len": COUNT,
        "parent": TEXT,
    },
    *("task", "max_model_len", "parent"),
)
ENGINE_STATE = record(
    {"model": TEXT, "kind": TEXT, "state": TEXT, "stage": TEXT, "fraction": FRACTION}
)
ENGINE = record(
    {
        "id": TEXT,
        "engine": TEXT,
        "reason": TEXT,
        "ready": {"type": "boolean"},
        "quantization": TEXT,
        "device": TEXT,
        "dtype": TEXT,
        "max_model_len": COUNT,
    },
    *("quantization", "device", "dtype", "max_model_len"),
)
LIVE = record({"status": {"const": "live"}})
STARTUP = record(
    {
        "status": {"enum": ["loading", "started"]},
        "stage": TEXT,
        "fraction": FRACTION,
        "engines": array(ENGINE_STATE),
    },
    "engines",
)
READY = record({"status": {"enum": ["ready", "degraded"]}, "down": array(TEXT)}, "down")
NOT_READY = record({"status": {"enum": ["draining", "loading", "engine_dead"]}})
VERSION = record(
    {
        "version": TEXT,
        "model": {"anyOf": [{"$ref": ENGINE_REF}, {"type": "null"}]},
        "engines": array({"$ref": ENGINE_REF}),
    }
)
SCHEMAS: dict[str, Schema] = {"Model": MODEL, "Engine": ENGINE}
MODEL_LIST = record({"object": {"const": "list"}, "data": array({"$ref": MODEL_REF})})
ERRORS = {
    "400": "A parameter is missing, mistyped or out of bounds.",
    "401": "No valid key.",
    "403": "The key does not allow this, or the Host header is malformed or foreign.",
    "404": "There is no such thing here.",
    "405": "The route takes another method; see Allow.",
    "500": "A defect; quote the request id.",
    "503": "Loading, overloaded or shutting down; see Retry-After.",
}


def json_answer(description: str, schema: Schema) -> Schema:
    """A response with a JSON body of this schema."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


ERROR_CONTENT: Schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
NOT_READY_ANSWER = json_answer("Loading, draining, or without an engine.", NOT_READY)
READY_ANSWERS = {"200": json_answer("Requests are taken.", READY), "503": NOT_READY_ANSWER}
ANSWERS: dict[str, dict[str, Schema]] = {
    "/health": READY_ANSWERS,
    "/health/ready": READY_ANSWERS,
    "/health/live": {"200": json_answer("The process runs.", LIVE)},
    "/health/startup": {
        "200": json_answer("The model has loaded.", STARTUP),
        "503": json_answer("The model is loading.", STARTUP),
    },
    "/v1/models": {"200": json_answer("The models.", MODEL_LIST)},
    "/v1/models/{model_id}": {"200": json_answer("The model.", {"$ref": MODEL_REF})},
    "/version": {"200": json_answer("The versions.", VERSION)},
    "/metrics": {
        "200": {"description": "The samples.", "content": {"text/plain": {"schema": TEXT}}}
    },
}


def completed(described: dict[str, Any]) -> dict[str, Any]:
    """The document with what the framework does not know: answers, errors, open paths."""
    document = copy.deepcopy(described)
    schemas = document["components"]["schemas"]
    for name in FRAMEWORKS_OWN:
        schemas.pop(name, None)
    schemas.update(SCHEMAS)
    for path, responses in ANSWERS.items():
        if path in document["paths"]:  # unless it is on a port of its own
            document["paths"][path]["get"]["responses"].update(responses)
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if method in METHODS:
                complete_operation(operation)
    return document


def complete_operation(operation: dict[str, Any]) -> None:
    """Add the errors that an operation does not describe; probes need no key and have none."""
    responses = operation["responses"]
    # The framework's own refusal, which this server answers as 400.
    responses.pop("422", None)
    if PROBES in operation.get("tags", ()):
        operation["security"] = []
        return
    # Errors come in one shape per protocol: what is described for one holds for the others.
    shape = responses.get("401", {}).get("content") or ERROR_CONTENT
    for status, text in ERRORS.items():
        responses.setdefault(status, {"description": text, "content": shape})
