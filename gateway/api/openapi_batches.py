"""Describes files and batches in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from gateway.api.openapi import COUNT, TEXT, json_content, or_null, record, reference
from gateway.batch.batch_rows import TIMES
from gateway.batch.files import BATCH_LIFETIME_S, HOUR_S, PURPOSES, UPLOAD_PURPOSES
from gateway.batch.service import ENDPOINTS
from gateway.protocol.batch_parameters import BATCH
from gateway.protocol.parameters import object_schema
from gateway.protocol.values import Schema

ERRORS = {
    400: "A field is missing, mistyped or out of bounds; `param` names it.",
    401: "No valid key.",
    403: "The key does not allow this, or the Host header is malformed or foreign.",
    404: "The caller has no object with this id.",
    408: "The body did not arrive in time.",
    409: "The batch has ended already.",
    413: "The file or the body is too large.",
    415: "The body is not of the expected type.",
    500: "A defect; quote the request id.",
    503: "The storage is not available or the server is shutting down; see Retry-After.",
}
ALWAYS = (401, 403, 500, 503)

FILE = record(
    {
        "id": TEXT,
        "object": {"const": "file"},
        "bytes": COUNT,
        "created_at": COUNT,
        "expires_at": or_null(COUNT),
        "filename": TEXT,
        "purpose": {"enum": list(PURPOSES)},
        "status": {"const": "processed"},
        "status_details": or_null(TEXT),
    }
)
ISSUE = record(
    {
        "code": TEXT,
        "message": TEXT,
        "param": or_null(TEXT),
        "line": or_null({"type": "integer", "minimum": 1}),
    }
)
STATUSES = (
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
)
BATCH_OBJECT = record(
    {
        "id": TEXT,
        "object": {"const": "batch"},
        "endpoint": {"enum": list(ENDPOINTS)},
        "model": or_null(TEXT),
        "errors": or_null(
            record({"object": {"const": "list"}, "data": {"type": "array", "items": ISSUE}})
        ),
        "input_file_id": TEXT,
        "completion_window": {"const": "24h"},
        "status": {"enum": list(STATUSES)},
        "output_file_id": or_null(TEXT),
        "error_file_id": or_null(TEXT),
        **{name: or_null(COUNT) for name in TIMES},
        "request_counts": record({"total": COUNT, "completed": COUNT, "failed": COUNT}),
        "usage": record(
            {
                "input_tokens": COUNT,
                "input_tokens_details": record({"cached_tokens": COUNT}),
                "output_tokens": COUNT,
                "output_tokens_details": record({"reasoning_tokens": COUNT}),
                "total_tokens": COUNT,
            }
        ),
        "metadata": or_null({"type": "object", "additionalProperties": TEXT}),
    }
)


def list_of(item: Schema) -> Schema:
    """A page of a list."""
    return record(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": item},
            "first_id": or_null(TEXT),
            "last_id": or_null(TEXT),
            "has_more": {"type": "boolean"},
        }
    )


ANSWERS: dict[str, Schema] = {
    "File": FILE,
    "FileList": list_of(FILE),
    "FileDeleted": record({"id": TEXT, "object": {"const": "file"}, "deleted": {"const": True}}),
    "Batch": BATCH_OBJECT,
    "BatchList": list_of(BATCH_OBJECT),
}

UPLOAD: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": HOUR_S,
                            "maximum": BATCH_LIFETIME_S,
                        },
                    },
                    "required": ["file", "purpose"],
                }
            }
        },
    }
}
CREATE_BATCH: Schema = {
    "requestBody": {"required": True, "content": json_content(object_schema(BATCH))}
}


def responses(answer: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route: 200 with a JSON object of ANSWERS, and errors."""
    return {
        200: {"description": "Done.", "content": json_content(ANSWERS[answer])},
        **failures(statuses),
    }


def download(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that answers with bytes."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"description": "The content.", "content": content}, **failures(statuses)}


def failures(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, by status."""
    return {
        status: {"description": ERRORS[status], "content": json_content(reference("Error"))}
        for status in sorted({*statuses, *ALWAYS})
    }
