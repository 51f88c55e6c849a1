"""GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.control.fleet import Fleet, Replica
from gateway.errors import ModelNotFound
from gateway.state import GatewayState

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List the served models")
async def list_models(request: Request) -> dict[str, Any]:
    """Each loaded model under each of its names."""
    return {"object": "list", "data": [card(r, name) for name, r in by_name(request).items()]}


@router.get("/v1/models/{model_id:path}", summary="Describe a served model")
async def get_model(request: Request, model_id: str) -> dict[str, Any]:
    """One model by any of its names; 404 model_not_found otherwise."""
    replica = by_name(request).get(model_id)
    if replica is None:
        raise ModelNotFound(f"The model '{model_id}' does not exist.", param="model")
    return card(replica, model_id)


def by_name(request: Request) -> dict[str, Replica]:
    """A replica of each model, by every name; raises ModelLoading before anything serves."""
    state: GatewayState = request.app.state.gateway
    fleet: Fleet = state.lifecycle.loaded_fleet()
    return {name: r for r in fleet.models() for name in (r.info.id, *r.info.aliases)}


def card(replica: Replica, name: str) -> dict[str, Any]:
    """A model as OpenAI lists it, with vLLM's ``root`` and ``max_model_len``."""
    info = replica.info
    return {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": "llm-gateway",
        "root": info.id,
        "max_model_len": info.max_model_len,
    }
