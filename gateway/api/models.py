"""GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.api.health import exchange_of
from gateway.control.fleet import Fleet, Pool, Replica
from gateway.errors import ModelNotFound
from gateway.state import GatewayState

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List the served models")
async def list_models(request: Request) -> dict[str, Any]:
    """Each loaded model under each of its names, as far as the key may use them."""
    return {"object": "list", "data": list(by_name(request).values())}


@router.get("/v1/models/{model_id:path}", summary="Describe a served model")
async def get_model(request: Request, model_id: str) -> dict[str, Any]:
    """One model by any of its names; 404 model_not_found otherwise."""
    found = by_name(request).get(model_id)
    if found is None:
        raise ModelNotFound(f"The model '{model_id}' does not exist.", param="model")
    return found


def by_name(request: Request) -> dict[str, dict[str, Any]]:
    """The card of each model by every name that the key may use.

    Raises ModelLoading before anything serves.
    """
    state: GatewayState = request.app.state.gateway
    fleet: Fleet = state.lifecycle.loaded_fleet()
    rights = exchange_of(request).principal.rights
    cards = {name: card(r, name) for r in fleet.models() for name in fleet.names_of(r)}
    for pool in fleet.pools:
        if fleet.is_up(pool):
            for name in pool.names:
                cards.setdefault(name, remote_card(pool, name))
    # Adapters of models on engines that take none.
    absent = {
        name
        for replica in fleet.models()
        if not replica.info.capabilities.lora
        for name in replica.config.vllm.lora_modules
    }
    return {
        name: found
        for name, found in cards.items()
        if rights.allows_model(name) and name not in absent
    }


def card(replica: Replica, name: str) -> dict[str, Any]:
    """A model as OpenAI lists it, with vLLM's ``root``, ``max_model_len`` and, of an adapter,
    ``parent``, and what it does."""
    info = replica.info
    is_adapter = name in replica.config.vllm.lora_modules
    return {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": "llm-gateway",
        "root": info.id,
        "task": "generation" if info.capabilities.generation else "embeddings",
        "max_model_len": info.max_model_len,
        **({"parent": info.id} if is_adapter else {}),
    }


def remote_card(pool: Pool, name: str) -> dict[str, Any]:
    """A model that other servers run, or that is split; its length is not known here.

    Of servers that offer the OpenAI APIs, it is not known either which of them the model takes.
    """
    return {
        "id": name,
        "object": "model",
        "created": pool.created,
        "owned_by": "llm-gateway",
        "root": pool.names[0],
    }
