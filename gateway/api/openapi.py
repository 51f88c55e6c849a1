"""Describes the hot routes, which bypass the framework, in the OpenAPI document.

Request schemas come from the tables that the parsers use, so they cannot disagree.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.api import (
    openapi_completions,
    openapi_embeddings,
    openapi_messages,
    openapi_operations,
    openapi_responses,
)
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.parameters import object_schema
from gateway.protocol.values import Schema

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}


def record(properties: Schema, *optional: str) -> Schema:
    """An object schema whose fields are required except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def or_null(schema: Schema) -> Schema:
    """The schema with null allowed."""
    return {"anyOf": [schema, {"type": "null"}]}


ERROR = record(
    {
        "error": record(
            {"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)}
        )
    }
)
TOKEN_LOGPROB = record(
    {
        "token": TEXT,
        "logprob": {"type": "number"},
        "bytes": or_null({"type": "array", "items": {"type": "integer"}}),
    }
)
TOKEN_LOGPROBS = or_null({"type": "array", "items": TOKEN_LOGPROB})
LOGPROBS = or_null(record({"content": TOKEN_LOGPROBS, "refusal": {}}, "refusal"))
USAGE = record(
    {
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "prompt_tokens_details": record({"cached_tokens": COUNT}),
        "completion_tokens_details": record({"reasoning_tokens": COUNT}),
    },
    "completion_tokens_details",
)
TOOL_CALL = record(
    {
        "id": TEXT,
        "type": {"const": "function"},
        "function": record({"name": TEXT, "arguments": TEXT}),
    }
)
TOOL_CALL_PIECE = record(
    {
        "index": COUNT,
        "id": TEXT,
        "type": {"const": "function"},
        "function": record({"name": TEXT, "arguments": TEXT}, "name"),
    },
    "id",
    "type",
)
TOKEN_IDS = {"type": "array", "items": COUNT}
FINISH = {"type": "string", "enum": ["stop", "length", "tool_calls"]}


def completion(kind: str, message_key: str, call: Schema, *optional: str) -> Schema:
    """A chat completion, whole or as a chunk."""
    message = record(
        {
            "role": {"const": "assistant"},
            "content": or_null(TEXT),
            "refusal": or_null(TEXT),
            "reasoning": TEXT,
            "reasoning_content": TEXT,
            "tool_calls": {"type": "array", "items": call},
        },
        "reasoning",
        "reasoning_content",
        "tool_calls",
        "refusal",
        *optional,
    )
    choice = record(
        {
            "index": COUNT,
            message_key: message,
            "logprobs": LOGPROBS,
            "finish_reason": or_null(FINISH),
            "stop_reason": {"anyOf": [TEXT, {"type": "integer"}]},
            "token_ids": TOKEN_IDS,
        },
        "stop_reason",
        "token_ids",
    )
    return record(
        {
            "id": TEXT,
            "object": {"const": kind},
            "created": COUNT,
            "model": TEXT,
            "system_fingerprint": TEXT,
            "choices": {"type": "array", "items": choice},
            "usage": or_null(USAGE),
            "prompt_logprobs": {"type": "array"},
            "prompt_token_ids": TOKEN_IDS,
        },
        "usage",
        "prompt_logprobs",
        "prompt_token_ids",
    )


def json_content(schema: Schema) -> Schema:
    """A JSON body of this schema."""
    return {"application/json": {"schema": schema}}


def reference(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: dict[str, Schema] = {
    "Error": ERROR,
    "ChatCompletionRequest": object_schema(CHAT),
    "ChatCompletion": completion("chat.completion", "message", TOOL_CALL),
    "ChatCompletionChunk": completion(
        "chat.completion.chunk", "delta", TOOL_CALL_PIECE, "role", "content"
    ),
}
ERRORS = {
    "400": "A field is missing, mistyped or out of bounds; `param` names it.",
    "401": "No valid key.",
    "404": "The model is not served here.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON.",
    "429": "A limit or a budget is used up; see Retry-After.",
    "500": "A defect; quote the request id.",
    "503": "Loading, overloaded or shutting down; see Retry-After.",
}
CHAT_OPERATION: Schema = {
    "tags": ["chat"],
    "summary": "Answer a conversation",
    "description": "OpenAI's chat completions, with the sampling extensions of vLLM.",
    "operationId": "create_chat_completion",
    "requestBody": {
        "required": True,
        "content": json_content(reference("ChatCompletionRequest")),
    },
    "responses": {
        "200": {
            "description": "The answer, or a stream of chunks that ends in `data: [DONE]`.",
            "content": {
                **json_content(reference("ChatCompletion")),
                "text/event-stream": {"schema": reference("ChatCompletionChunk")},
            },
        },
        **{
            status: {"description": text, "content": json_content(reference("Error"))}
            for status, text in ERRORS.items()
        },
    },
}
HOT_PATHS: dict[str, Schema] = {"/v1/chat/completions": {"post": CHAT_OPERATION}}

DESCRIBED = (openapi_completions, openapi_embeddings, openapi_messages, openapi_responses)


def describe_hot_routes(app: FastAPI) -> None:
    """Make ``app`` document the hot routes beside its own."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            document["paths"].update(HOT_PATHS)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(SCHEMAS)
            for described in DESCRIBED:
                document["paths"].update(described.PATHS)
                components["schemas"].update(described.SCHEMAS)
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
            document["security"] = [{"bearer": []}, {"apiKey": []}]
            app.openapi_schema = openapi_operations.completed(document)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
