"""Describes Anthropic's protocol in the OpenAPI document: paths and schemas to be added."""

from __future__ import annotations

from gateway.protocol.anthropic_errors import TYPES
from gateway.protocol.anthropic_parameters import COUNT_TOKENS, MESSAGES
from gateway.protocol.parameters import object_schema
from gateway.protocol.values import Schema, nullable

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
STOP_REASONS = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "model_context_window_exceeded",
)
ERRORS = {
    "400": "A field is missing, mistyped or out of bounds; the message names it.",
    "401": "No valid key.",
    "403": "The Host header is not this server's.",
    "404": "The model is not served here.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON.",
    "429": "A limit or a budget is used up; see Retry-After.",
    "500": "A defect; quote the request id.",
    "503": "Loading or shutting down; see Retry-After.",
    "529": "Overloaded; see Retry-After.",
}


def record(**properties: Schema) -> Schema:
    """An object whose fields are all there."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def tagged(kind: str, **properties: Schema) -> Schema:
    """An object with a fixed ``type``."""
    return record(type={"const": kind}, **properties)


def reference(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


BLOCK: Schema = {
    "anyOf": [
        tagged("text", text=TEXT),
        tagged("thinking", thinking=TEXT, signature=TEXT),
        tagged("tool_use", id=TEXT, name=TEXT, input={"type": "object"}),
    ]
}
USAGE = record(
    input_tokens=COUNT,
    cache_creation_input_tokens=COUNT,
    cache_read_input_tokens=COUNT,
    output_tokens=COUNT,
    output_tokens_details=record(thinking_tokens=COUNT),
)
ENDING: dict[str, Schema] = {
    "stop_reason": nullable({"type": "string", "enum": list(STOP_REASONS)}),
    "stop_sequence": nullable(TEXT),
}
MESSAGE = record(
    id=TEXT,
    type={"const": "message"},
    role={"const": "assistant"},
    model=TEXT,
    content={"type": "array", "items": BLOCK},
    usage=USAGE,
    **ENDING,
)
DELTA: Schema = {
    "anyOf": [
        tagged("text_delta", text=TEXT),
        tagged("thinking_delta", thinking=TEXT),
        tagged("signature_delta", signature=TEXT),
        tagged("input_json_delta", partial_json=TEXT),
    ]
}
ERROR = tagged(
    "error",
    error=record(type={"type": "string", "enum": sorted(set(TYPES.values()))}, message=TEXT),
    request_id=nullable(TEXT),
)
EVENT: Schema = {
    "anyOf": [
        tagged("message_start", message=MESSAGE),
        tagged("content_block_start", index=COUNT, content_block=BLOCK),
        tagged("content_block_delta", index=COUNT, delta=DELTA),
        tagged("content_block_stop", index=COUNT),
        tagged("message_delta", delta=record(**ENDING), usage=USAGE),
        tagged("message_stop"),
        tagged("ping"),
        ERROR,
    ]
}

SCHEMAS: dict[str, Schema] = {
    "AnthropicError": ERROR,
    "MessageRequest": object_schema(MESSAGES),
    "Message": MESSAGE,
    "MessageStreamEvent": EVENT,
    "CountTokensRequest": object_schema(COUNT_TOKENS),
    "CountTokens": record(input_tokens=COUNT),
}


def operation(summary: str, name: str, request: str, content: Schema, answer: str) -> Schema:
    """A POST of JSON with Anthropic's errors."""
    errors: Schema = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": reference("AnthropicError")}},
        }
        for status, text in ERRORS.items()
    }
    return {
        "tags": ["messages"],
        "summary": summary,
        "description": "Anthropic's protocol; errors in its shape.",
        "operationId": name,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference(request)}},
        },
        "responses": {"200": {"description": answer, "content": content}, **errors},
    }


PATHS: dict[str, Schema] = {
    "/v1/messages": {
        "post": operation(
            "Answer a conversation",
            "create_message",
            "MessageRequest",
            {
                "application/json": {"schema": reference("Message")},
                "text/event-stream": {"schema": reference("MessageStreamEvent")},
            },
            "The message, or a stream of events that ends in `message_stop`.",
        )
    },
    "/v1/messages/count_tokens": {
        "post": operation(
            "Count the tokens of a conversation",
            "count_message_tokens",
            "CountTokensRequest",
            {"application/json": {"schema": reference("CountTokens")}},
            "The number of tokens of the prompt.",
        )
    },
}
