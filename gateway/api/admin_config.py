"""/admin/config: what the server goes by, what would change, and to have it read again.

For admins of the whole server only; no answer holds a secret.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api import admin_schemas as schemas
from gateway.api.admin import Json, actor_of, shown
from gateway.api.health import gateway_of
from gateway.config.plan import Plan
from gateway.config.reloader import Reloader
from gateway.config.show import entries
from gateway.config.snapshot import ConfigInvalid
from gateway.errors import Conflict

router = APIRouter(tags=["admin"])

VALUE: Json = {"description": "As the setting has it; secrets are masked."}
CHANGE: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "before": VALUE,
        "after": VALUE,
        "applies": {"type": "string", "enum": ["reload", "restart"]},
    },
}
CONFIG: Json = {
    "type": "object",
    "properties": {
        "object": {"type": "string", "const": "config"},
        "hash": {"type": "string"},
        "since": {"type": "integer"},
        "settings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "value": VALUE,
                    "source": {"type": "string"},
                },
            },
        },
    },
}
NOT_USABLE: dict[int | str, dict[str, Any]] = {
    409: {
        **schemas.responses({}, 409)[409],
        "description": "What was read is not usable; the message has every fault.",
    }
}
CHANGES: Json = {
    "type": "object",
    "properties": {
        "object": {"type": "string", "enum": ["config.pending", "config.reload"]},
        "hash": {"type": "string"},
        "previous_hash": {"type": "string"},
        "changed": {"type": "array", "items": CHANGE},
        "requires_restart": {"type": "array", "items": CHANGE},
    },
}


@router.get(
    "/admin/config",
    summary="Show the configuration in force",
    operation_id="retrieve_config",
    responses=schemas.responses(CONFIG),
)
async def retrieve_config(request: Request) -> Response:
    """Every value with where it comes from."""
    live = gateway_of(request).live
    snapshot = live.current
    return shown(
        {
            "object": "config",
            "hash": snapshot.digest,
            "since": int(live.since),
            "settings": [entry.card() for entry in entries(snapshot)],
        }
    )


@router.get(
    "/admin/config/pending",
    summary="Show what a reload would change",
    operation_id="list_pending_config",
    responses=schemas.responses(CHANGES) | NOT_USABLE,
)
async def list_pending_config(request: Request) -> Response:
    """Reads everything again and changes nothing; 409 when it is not usable."""
    reloader = reloader_of(request)
    try:
        return shown(card("config.pending", await reloader.pending()))
    except ConfigInvalid as error:
        raise invalid(error) from None


@router.post(
    "/admin/config/reload",
    summary="Read the configuration again",
    operation_id="reload_config",
    responses=schemas.responses(CHANGES) | NOT_USABLE,
)
async def reload_config(request: Request) -> Response:
    """All or nothing: 409 with every fault, and nothing changed, when it is not usable."""
    reloader = reloader_of(request)
    try:
        return shown(card("config.reload", await reloader.reload(actor_of(request))))
    except ConfigInvalid as error:
        raise invalid(error) from None


def reloader_of(request: Request) -> Reloader:
    """Raises Conflict for an application that runs without the server's own process."""
    found = gateway_of(request).live.reloader
    if found is None:
        raise Conflict("This application was not started by 'llm-gateway serve'; restart it.")
    return found


def card(kind: str, plan: Plan) -> Json:
    """Changes as the API shows them."""
    return {
        "object": kind,
        "hash": plan.snapshot.digest,
        "previous_hash": plan.before.digest,
        "changed": [change.card() for change in plan.applied],
        "requires_restart": [change.card() for change in plan.waiting],
    }


def invalid(error: ConfigInvalid) -> Conflict:
    """What is wrong with what was read."""
    return Conflict(f"Nothing was changed, the configuration is not usable:\n{error}")
