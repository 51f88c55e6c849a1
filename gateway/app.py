"""Builds the ASGI application: the edge, the hot routes, and FastAPI for the rest."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway import __version__
from gateway.api import health, models, operations
from gateway.api.chat import ChatCompletions
from gateway.api.openapi import describe_hot_routes
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    UnknownUrl,
    answer,
)
from gateway.http.edge import Edge
from gateway.state import GatewayState
from gateway.telemetry.logging import REQUEST_ID


def build_app(state: GatewayState) -> Edge:
    """The application that uvicorn runs."""
    return Edge(state, {"/v1/chat/completions": ChatCompletions(state)}, build_cold_app(state))


def build_cold_app(state: GatewayState) -> FastAPI:
    """FastAPI with every route that is not hot, and the documentation of all."""
    app = FastAPI(
        title="llm-gateway",
        version=__version__,
        description="A self-hosted OpenAI-compatible LLM server.",
        redirect_slashes=False,
    )
    app.state.gateway = state
    for module in (models, health, operations):
        app.include_router(module.router)
    describe_hot_routes(app)
    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, respond_to_error)
    return app


async def respond_to_error(request: Request, error: Exception) -> Response:
    """The table of errors, for routes behind the framework."""
    if isinstance(error, HTTPException):
        error = translate(request, error)
    elif isinstance(error, RequestValidationError):
        error = InvalidRequest("The request's path or query is not valid.")
    reply = answer(error, REQUEST_ID.get() or "")
    headers: dict[str, str] = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, media_type="application/json")


def translate(request: Request, error: HTTPException) -> GatewayError:
    """The framework's own refusals as ours."""
    method, path = request.scope["method"], request.scope["path"][:256]
    if error.status_code == 404:
        return UnknownUrl(f"Unknown request URL: {method} {path}.")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET")
        return MethodNotAllowed(f"Use {allow} for {path}.", allow=allow)
    return InvalidRequest("The request is not valid.")
