"""Describes completions, tokens and predictions in the OpenAPI document."""

from __future__ import annotations

from gateway.protocol.completion_parameters import COMPLETION
from gateway.protocol.parameters import object_schema
from gateway.protocol.predict import PREDICT
from gateway.protocol.token_requests import DETOKENIZE, TOKENIZE
from gateway.protocol.values import Schema, nullable

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ERRORS = {
    "400": "A field is missing, mistyped or out of bounds; `param` names it.",
    "401": "No valid key.",
    "403": "The Host header is not this server's.",
    "404": "The model is not served here.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON.",
    "429": "A limit or a budget is used up; see Retry-After.",
    "500": "A defect; quote the request id.",
    "503": "Loading, overloaded or shutting down; see Retry-After.",
}


def record(properties: Schema, *optional: str) -> Schema:
    """An object schema whose fields are required except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def array(items: Schema) -> Schema:
    """An array of such items."""
    return {"type": "array", "items": items}


def reference(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_content(schema: Schema) -> Schema:
    """A JSON body of this schema."""
    return {"application/json": {"schema": schema}}


def operation(
    name: str, tag: str, summary: str, description: str, request: str, answer: Schema
) -> Schema:
    """A POST of a JSON body; ``answer`` is the content of a 200."""
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "description": description,
            "operationId": name,
            "requestBody": {"required": True, "content": json_content(reference(request))},
            "responses": {
                "200": {"description": "The answer.", "content": answer},
                **{
                    status: {"description": text, "content": json_content(reference("Error"))}
                    for status, text in ERRORS.items()
                },
            },
        }
    }


LOGPROBS = record(
    {
        "tokens": array(TEXT),
        "token_logprobs": array(nullable(NUMBER)),
        "top_logprobs": array(nullable({"type": "object", "additionalProperties": NUMBER})),
        "text_offset": array(COUNT),
    }
)
USAGE = record(
    {
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "prompt_tokens_details": record({"cached_tokens": COUNT}),
        "degraded": {"type": "boolean"},
    },
    "degraded",
)
CHOICE = record(
    {
        "index": COUNT,
        "text": TEXT,
        "logprobs": nullable(LOGPROBS),
        "finish_reason": nullable({"type": "string", "enum": ["stop", "length"]}),
        "stop_reason": {"anyOf": [TEXT, {"type": "integer"}]},
        "prompt_logprobs": array(nullable({"type": "object"})),
        "token_ids": array(COUNT),
        "prompt_token_ids": array(COUNT),
    },
    "stop_reason",
    "prompt_logprobs",
    "token_ids",
    "prompt_token_ids",
)
COMPLETION_ANSWER = record(
    {
        "id": TEXT,
        "object": {"const": "text_completion"},
        "created": COUNT,
        "model": TEXT,
        "system_fingerprint": TEXT,
        "choices": array(CHOICE),
        "usage": nullable(USAGE),
    },
    "usage",
)


def given(name: str, kind: str) -> Schema:
    """The field is there; null counts as absent."""
    return {"required": [name], "properties": {name: {"type": kind}}}


ONE_OF_BOTH: Schema = {"oneOf": [given("prompt", "string"), given("messages", "array")]}

SCHEMAS: dict[str, Schema] = {
    "CompletionRequest": object_schema(COMPLETION),
    "Completion": COMPLETION_ANSWER,
    "TokenizeRequest": {**object_schema(TOKENIZE), **ONE_OF_BOTH},
    "Tokens": record(
        {
            "count": COUNT,
            "max_model_len": COUNT,
            "tokens": array(COUNT),
            "token_strs": nullable(array(TEXT)),
        }
    ),
    "DetokenizeRequest": object_schema(DETOKENIZE),
    "Detokenized": record({"prompt": TEXT}),
    "PredictRequest": object_schema(PREDICT),
    "Predictions": record(
        {
            "predictions": {
                "anyOf": [
                    array({"anyOf": [reference("ChatCompletion"), reference("Completion")]}),
                    reference("ChatCompletion"),
                ]
            }
        }
    ),
}
PATHS: dict[str, Schema] = {
    "/v1/completions": operation(
        "create_completion",
        "completions",
        "Continue one or more prompts",
        "OpenAI's legacy completions, with the extensions of vLLM. A stream consists of events "
        "of the same shape and ends in `data: [DONE]`.",
        "CompletionRequest",
        {
            **json_content(reference("Completion")),
            "text/event-stream": {"schema": reference("Completion")},
        },
    ),
    "/tokenize": operation(
        "tokenize",
        "tokens",
        "Tokens of a text or of a conversation",
        "vLLM's route. Texts longer than the model's context are counted as well.",
        "TokenizeRequest",
        json_content(reference("Tokens")),
    ),
    "/detokenize": operation(
        "detokenize",
        "tokens",
        "Text of token ids",
        "vLLM's route. Special tokens are part of the text.",
        "DetokenizeRequest",
        json_content(reference("Detokenized")),
    ),
    "/predict": operation(
        "predict",
        "predictions",
        "Answer several requests in Vertex AI's shape",
        "Also served on the route that AIP_PREDICT_ROUTE names. Predictions are in the order of "
        "the instances; a single instance with `@requestFormat` is answered without the array.",
        "PredictRequest",
        json_content(reference("Predictions")),
    ),
}
