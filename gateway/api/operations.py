"""GET /version and GET /metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway import __version__
from gateway.api.health import exchange_of, gateway_of
from gateway.control.fleet import Replica
from gateway.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["operations"])


@router.get("/version", summary="Versions of the gateway and of what it serves")
async def version(request: Request) -> dict[str, Any]:
    """``model`` is the first one, null until it has loaded; ``engines`` lists them all, as far
    as the key may use them; ``config`` is the hash of the configuration in force."""
    fleet = gateway_of(request).lifecycle.fleet
    rights = exchange_of(request).principal.rights
    engines = [
        describe(replica)
        for replica in fleet or ()
        if any(map(rights.allows_model, replica.config.names))
    ]
    model = engines[0] if engines and engines[0]["ready"] else None
    return {
        "version": __version__,
        "config": gateway_of(request).live.current.digest,
        "model": model,
        "engines": engines,
    }


def describe(replica: Replica) -> dict[str, Any]:
    """An engine: what it serves, and which kind it is and why."""
    shown: dict[str, Any] = {
        "id": replica.config.names[0],
        "engine": replica.kind,
        "reason": replica.reason,
        "ready": replica.ready,
    }
    if replica.ready:
        info = replica.info
        shown |= {
            "quantization": info.quantization,
            "device": info.device,
            "dtype": info.dtype,
            "max_model_len": info.max_model_len,
        }
    return shown


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Text format; gauges of the engine are read at this moment."""
    text = gateway_of(request).lifecycle.metrics.render()
    return Response(text, media_type=CONTENT_TYPE)
