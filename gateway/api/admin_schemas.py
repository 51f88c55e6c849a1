"""Describes the admin API in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from gateway.api.openapi import COUNT, TEXT, json_content, or_null, record, reference
from gateway.control.identity.parameters import CREATE, REVOKE, RIGHTS, ROTATE, UPDATE, Fields
from gateway.protocol.values import Schema

ERRORS = {
    400: "A field is unknown, mistyped or out of bounds; `param` names it.",
    401: "No valid key.",
    403: "The key is no admin's, or what is asked goes beyond its rights.",
    404: "There is no such key, or it is not this admin's to manage.",
    408: "The body did not arrive in time.",
    409: "The key is in a state that does not allow this.",
    413: "The body is too large.",
    415: "The body is not plain JSON.",
    500: "A defect; quote the request id.",
    503: "The store of keys is not available; see Retry-After.",
}
ALWAYS = (401, 403, 500, 503)
OF_A_BODY = (400, 404, 408, 409, 413, 415)

KEY = record(
    {
        "id": TEXT,
        "object": {"const": "key"},
        "name": TEXT,
        "organisation": TEXT,
        "project": TEXT,
        "status": {"enum": ["active", "expired", "revoked"]},
        "created_at": COUNT,
        "created_by": TEXT,
        "parent": or_null(TEXT),
        "expires_at": or_null(COUNT),
        "rotated_at": or_null(COUNT),
        "previous_secret_until": or_null(COUNT),
        "revoked_at": or_null(COUNT),
        "rights": RIGHTS.schema(),
    }
)
SHOWN_ONCE: Schema = {**TEXT, "description": "The key itself. It is not shown again."}
NEW_KEY = record({**KEY["properties"], "key": SHOWN_ONCE})
ENTRY = record(
    {
        "id": TEXT,
        "object": {"const": "audit_entry"},
        "at": COUNT,
        "actor": TEXT,
        "source": or_null(TEXT),
        "request_id": or_null(TEXT),
        "action": TEXT,
        "target": TEXT,
        "organisation": or_null(TEXT),
        "project": or_null(TEXT),
        "before": or_null({"type": "object"}),
        "after": or_null({"type": "object"}),
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


def responses(answer: Schema, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route: 200 with this JSON object, and errors."""
    return {
        200: {"description": "Done.", "content": json_content(answer)},
        **{
            status: {"description": ERRORS[status], "content": json_content(reference("Error"))}
            for status in sorted({*statuses, *ALWAYS})
        },
    }


def body(fields: Fields, *, required: bool = False) -> Schema:
    """The body that a route takes."""
    return {"requestBody": {"required": required, "content": json_content(fields.schema())}}


CREATE_BODY = body(CREATE)
UPDATE_BODY = body(UPDATE, required=True)
ROTATE_BODY = body(ROTATE)
REVOKE_BODY = body(REVOKE)
