"""Describes the Responses API in the OpenAPI document: paths and schemas to be added."""

from __future__ import annotations

from typing import Any

from gateway.protocol.parameters import object_schema
from gateway.protocol.response_parameters import RESPONSES
from gateway.protocol.response_tools import FUNCTION
from gateway.protocol.values import Schema, nullable

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
OBJECT: Schema = {"type": "object"}
STATUSES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
ITEM_STATUS: Schema = {"type": "string", "enum": ["in_progress", "completed", "incomplete"]}
ERRORS = {
    "400": "A field is missing, mistyped or out of bounds; `param` names it.",
    "401": "No valid key.",
    "403": "The Host header is not this server's.",
    "404": "No such model, or no such response for this key.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON.",
    "429": "A limit or a budget is used up; see Retry-After.",
    "500": "A defect; quote the request id.",
    "503": "Loading, overloaded, shutting down, or the storage does not answer; see Retry-After.",
}


def record(*optional: str, **properties: Schema) -> Schema:
    """An object whose fields are all there except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def tagged(kind: str, *optional: str, **properties: Schema) -> Schema:
    """An object with a fixed ``type``."""
    return record(*optional, type={"const": kind}, **properties)


def list_of(item: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": item}


def reference(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


LOGPROB: dict[str, Schema] = {
    "token": TEXT,
    "logprob": {"type": "number"},
    "bytes": list_of({"type": "integer"}),
}
PART: Schema = {
    "anyOf": [
        tagged(
            "output_text",
            "logprobs",
            text=TEXT,
            annotations=list_of({}),
            logprobs=list_of(record(**LOGPROB, top_logprobs=list_of(record(**LOGPROB)))),
        ),
        tagged("refusal", refusal=TEXT),
        tagged("input_text", text=TEXT),
        tagged("input_image", image_url=TEXT, detail=TEXT),
    ]
}
MESSAGE = tagged("message", id=TEXT, status=ITEM_STATUS, role=TEXT, content=list_of(PART))
CALL = tagged("function_call", id=TEXT, status=ITEM_STATUS, call_id=TEXT, name=TEXT, arguments=TEXT)
CALL_OUTPUT = tagged(
    "function_call_output",
    id=TEXT,
    status=ITEM_STATUS,
    call_id=TEXT,
    output={"anyOf": [TEXT, list_of(tagged("input_text", text=TEXT))]},
)
REASONING = tagged(
    "reasoning",
    "status",
    id=TEXT,
    status=ITEM_STATUS,
    summary=list_of(tagged("summary_text", text=TEXT)),
    content=list_of(tagged("reasoning_text", text=TEXT)),
)
USAGE = record(
    "degraded",
    input_tokens=COUNT,
    input_tokens_details=record(cached_tokens=COUNT, cache_write_tokens=COUNT),
    output_tokens=COUNT,
    output_tokens_details=record(reasoning_tokens=COUNT),
    total_tokens=COUNT,
    degraded=FLAG,
)
TOOL: Schema = {
    **FUNCTION.schema(),
    "required": ["type", "name", "description", "parameters", "strict"],
}
RESPONSE = record(
    id=TEXT,
    object={"const": "response"},
    created_at=COUNT,
    status={"type": "string", "enum": list(STATUSES)},
    background=FLAG,
    completed_at=nullable(COUNT),
    error=nullable(record(code=TEXT, message=TEXT)),
    incomplete_details=nullable(record(reason={"const": "max_output_tokens"})),
    instructions=nullable(TEXT),
    max_output_tokens=nullable(COUNT),
    max_tool_calls=nullable(COUNT),
    metadata={"type": "object", "additionalProperties": TEXT},
    model=TEXT,
    output=list_of({"anyOf": [reference("ResponseMessage"), reference("ResponseCall"), REASONING]}),
    parallel_tool_calls=FLAG,
    previous_response_id=nullable(TEXT),
    prompt_cache_key=nullable(TEXT),
    reasoning=record(effort=nullable(TEXT), summary=nullable(TEXT)),
    safety_identifier=nullable(TEXT),
    service_tier={"enum": ["priority", "default", "flex"]},
    store=FLAG,
    temperature=nullable({"type": "number"}),
    text=record(format=record("type", type=TEXT), verbosity=TEXT),
    tool_choice={"anyOf": [TEXT, OBJECT]},
    tools=list_of(TOOL),
    top_logprobs=COUNT,
    top_p=nullable({"type": "number"}),
    truncation=TEXT,
    usage=nullable(USAGE),
    user=nullable(TEXT),
)
ITEMS = record(
    object={"const": "list"},
    data=list_of(
        {
            "anyOf": [
                reference("ResponseMessage"),
                reference("ResponseCall"),
                CALL_OUTPUT,
                REASONING,
            ]
        }
    ),
    first_id=nullable(TEXT),
    last_id=nullable(TEXT),
    has_more=FLAG,
)
DELETED = record(id=TEXT, object={"const": "response"}, deleted={"const": True})
EVENT: Schema = {
    **record(type=TEXT, sequence_number=COUNT),
    "description": "One event; what else it holds depends on its type.",
}

SCHEMAS: dict[str, Schema] = {
    "ResponseRequest": object_schema(RESPONSES),
    "Response": RESPONSE,
    "ResponseMessage": MESSAGE,
    "ResponseCall": CALL,
    "ResponseEvent": EVENT,
    "ResponseInputItems": ITEMS,
    "ResponseDeleted": DELETED,
}


def answers(schema: str, text: str, *, stream: bool = False, without: str = "") -> Schema:
    """The responses of an operation; ``without`` lists statuses that it never gives."""
    content: dict[str, Any] = {"application/json": {"schema": reference(schema)}}
    if stream:
        content["text/event-stream"] = {"schema": reference("ResponseEvent")}
    error = {"application/json": {"schema": reference("Error")}}
    return {
        "200": {"description": text, "content": content},
        **{
            status: {"description": why, "content": error}
            for status, why in ERRORS.items()
            if status not in without.split()
        },
    }


def operation(name: str, summary: str, *parameters: Schema, **rest: Any) -> Schema:
    """An operation of this API."""
    found = {"tags": ["responses"], "operationId": name, "summary": summary, **rest}
    return {**found, "parameters": list(parameters)} if parameters else found


def query(name: str, text: str, schema: Schema) -> Schema:
    """An optional query parameter."""
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


ID: Schema = {
    "name": "response_id",
    "in": "path",
    "required": True,
    "description": "Id of a stored response.",
    "schema": TEXT,
}
NO_BODY = "408 413 415"
PATHS: dict[str, Schema] = {
    "/v1/responses": {
        "post": operation(
            "create_response",
            "Answer, and keep the response",
            description="OpenAI's Responses API, with the sampling extensions of vLLM.",
            requestBody={
                "required": True,
                "content": {"application/json": {"schema": reference("ResponseRequest")}},
            },
            responses=answers("Response", "The response, or its events.", stream=True),
        )
    },
    "/v1/responses/{response_id}": {
        "get": operation(
            "get_response",
            "Read a stored response, or follow a background stream",
            ID,
            query("stream", "Send the events of a background stream.", FLAG),
            query("starting_after", "Only events with higher numbers.", COUNT),
            responses=answers(
                "Response", "The response, or its events.", stream=True, without=NO_BODY
            ),
        ),
        "delete": operation(
            "delete_response",
            "Delete a stored response",
            ID,
            responses=answers("ResponseDeleted", "It is gone.", without=NO_BODY),
        ),
    },
    "/v1/responses/{response_id}/cancel": {
        "post": operation(
            "cancel_response",
            "Cancel a background response",
            ID,
            responses=answers("Response", "The response as it was left.", without=NO_BODY),
        )
    },
    "/v1/responses/{response_id}/input_items": {
        "get": operation(
            "list_response_input_items",
            "List the input of a stored response",
            ID,
            query("after", "Go on behind this item.", {"type": "string", "maxLength": 128}),
            query("limit", "Items at most.", {"type": "integer", "minimum": 1, "maximum": 100}),
            query("order", "By age.", {"type": "string", "enum": ["asc", "desc"]}),
            responses=answers("ResponseInputItems", "One page.", without=NO_BODY),
        )
    },
}
