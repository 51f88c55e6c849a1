"""Probes: is the process up, has it started, does it take work."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from gateway.control.fleet import Replica
from gateway.errors import LOADING_RETRY_S
from gateway.http.exchange import Exchange
from gateway.state import GatewayState

router = APIRouter(tags=["health"])


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="200 while the process runs")
async def live() -> JSONResponse:
    """Does not look at the engine: restarting would not load a model faster."""
    return JSONResponse({"status": "live"})


@router.head("/health/startup", include_in_schema=False)
@router.get("/health/startup", summary="200 once the model has loaded, 503 with progress before")
async def startup(request: Request) -> JSONResponse:
    """What is loading and how far it is."""
    lifecycle = gateway_of(request).lifecycle
    body: dict[str, Any] = {"status": "loading", "stage": "starting", "fraction": None}
    if lifecycle.fleet is not None:
        for replica in lifecycle.fleet.pools[0].replicas[:1]:
            progress = replica.engine.progress
            body.update(stage=progress.stage, fraction=progress.fraction)
        body["engines"] = [state_of(replica) for replica in lifecycle.fleet]
        if lifecycle.started:
            body["status"] = "started"
    return probe(body, ok=lifecycle.started)


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="The same as /health/ready")
@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", summary="200 while requests are taken, 503 otherwise")
async def ready(request: Request) -> JSONResponse:
    """``degraded`` while some model is down or answered by the fallback; not ready while
    loading, while draining, and when no engine is left."""
    lifecycle = gateway_of(request).lifecycle
    fleet = lifecycle.fleet
    if lifecycle.draining:
        return probe({"status": "draining"}, ok=False)
    if fleet is None or not fleet.was_started:
        return probe({"status": "loading"}, ok=False)
    await fleet.notice_deaths()
    if not fleet.started:
        return probe({"status": "engine_dead"}, ok=False)
    down = [pool.names[0] for pool in fleet.pools if not fleet.is_up(pool)]
    if down:
        return probe({"status": "degraded", "down": down}, ok=True)
    return probe({"status": "ready"}, ok=True)


def state_of(replica: Replica) -> dict[str, Any]:
    """One engine as the probes show it."""
    progress = replica.engine.progress
    return {
        "model": replica.config.names[0],
        "kind": replica.kind,
        "state": progress.state,
        "stage": progress.stage,
        "fraction": progress.fraction,
    }


def gateway_of(request: Request) -> GatewayState:
    """The state that the application was built with."""
    state: GatewayState = request.app.state.gateway
    return state


def exchange_of(request: Request) -> Exchange:
    """The exchange that this request belongs to."""
    exchange: Exchange = request.scope["exchange"]
    return exchange


def probe(body: dict[str, Any], *, ok: bool) -> JSONResponse:
    """200 or 503 with a hint when to ask again."""
    headers = {"cache-control": "no-store"}
    if not ok:
        headers["retry-after"] = str(LOADING_RETRY_S)
    return JSONResponse(body, 200 if ok else 503, headers)
