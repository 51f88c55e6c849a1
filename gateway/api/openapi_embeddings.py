"""Describes embeddings in the OpenAPI document."""

from __future__ import annotations

from gateway.api.openapi_completions import COUNT, TEXT, array, json_content, operation, record
from gateway.api.openapi_completions import reference as named
from gateway.protocol.embedding_request import EMBEDDINGS, MAX_INPUTS
from gateway.protocol.parameters import object_schema
from gateway.protocol.values import Schema

VECTOR: Schema = {
    "anyOf": [array({"type": "number"}), {"type": "string", "contentEncoding": "base64"}],
    "description": "Floats, or float32 in little-endian order as base64.",
}
SCHEMAS: dict[str, Schema] = {
    "EmbeddingRequest": object_schema(EMBEDDINGS),
    "EmbeddingList": record(
        {
            "object": {"const": "list"},
            "data": {
                **array(
                    record({"object": {"const": "embedding"}, "index": COUNT, "embedding": VECTOR})
                ),
                "maxItems": MAX_INPUTS,
            },
            "model": TEXT,
            "usage": record({"prompt_tokens": COUNT, "total_tokens": COUNT}),
        }
    ),
}
PATHS: dict[str, Schema] = {
    "/v1/embeddings": operation(
        "create_embeddings",
        "embeddings",
        "Turn texts into vectors",
        "OpenAI's embeddings, with the truncation of vLLM.",
        "EmbeddingRequest",
        json_content(named("EmbeddingList")),
    )
}
